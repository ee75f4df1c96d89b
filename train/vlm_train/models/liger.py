"""Liger's fused Triton kernels (RMS norm, rotary positions) for Qwen3-VL, where they are installed and there is CUDA.

Its losses stay off: ours is chunked already. This has never run on a GPU here.
"""

from importlib.util import find_spec
from typing import Any

from torch import nn

from vlm_catalogs.errors import ConfigError

FAMILIES = ("qwen3_vl", "qwen3_vl_moe")


def refuse_liger(model_type: str, *, where: str) -> None:
    """Raise ConfigError where the kernels do not know the model, or are not installed. ``where`` names the setting."""
    if model_type not in FAMILIES:
        raise ConfigError(f"{where}: liger-kernel has none for {model_type}; leave it false")
    if find_spec("liger_kernel") is None:
        raise ConfigError(
            f"{where}: liger-kernel is not installed: pip install --no-deps liger-kernel; or leave it false"
        )


def use_liger(module: nn.Module, model_type: str) -> None:
    """Let ``module`` run the kernels, in place."""
    from liger_kernel.transformers import monkey_patch  # type: ignore[import-not-found, unused-ignore]

    settings: dict[str, Any] = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN[model_type](model=module, **settings)
