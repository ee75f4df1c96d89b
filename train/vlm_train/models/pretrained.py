"""Checkpoints in Hugging Face form: loaded whole or not at all, and written so that plain transformers reloads them."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.utils import logging as transformers_logging

from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_train.models.packed_layers import SEGMENTED, register_attention

if TYPE_CHECKING:
    from vlm_catalogs.config import Config

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.index.json", "*.bin", "*.pt", "*.pth")
"""What ``save_pretrained`` writes itself, or what holds weights: never copied from the base model to an export."""
NUM_KEYS_SHOWN = 10
KEPT_OPERATORS = ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "linear", "convolution")
KEPT_ATTENTION = ("_scaled_dot_product_", "_flash_attn_")
"""What selective checkpointing keeps: dear to compute, small to hold."""

Part = TypeVar("Part")


def hush_progress_bars() -> None:
    """Leave the terminal to our own lines: transformers draws a bar for each file that it reads or writes."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def read_config(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The config of ``model``. Raises ConfigError where there is none."""
    _check_folder(model, ("config.json",))
    return _from_pretrained(AutoConfig.from_pretrained, model, revision, trust_remote_code)


def read_processor(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> ProcessorMixin:
    """The processor of ``model``. Raises ConfigError where there is none."""
    processor = _from_pretrained(AutoProcessor.from_pretrained, model, revision, trust_remote_code)
    if not isinstance(processor, ProcessorMixin):
        raise ConfigError(f"{model}: holds a tokenizer, but no image processor (processor_config.json or the like)")
    return processor


def load_pretrained(model: str, *, dtype: torch.dtype, device: torch.device | str, config: "Config") -> PreTrainedModel:
    """The model of a folder or hub name with every weight loaded; attention heeds segments, no router loss.

    Raises ConfigError where no weights are found, DataError where some are missing or do not fit: nothing is ever left
    at its random start.
    """
    policy = config.policy
    weights = policy.model_safetensor_path or model
    model_config = read_config(model, revision=policy.model_revision, trust_remote_code=policy.trust_remote_code)
    _check_folder(weights, WEIGHTS)
    register_attention()
    load: Callable[..., Any] = partial(
        AutoModelForImageTextToText.from_pretrained,
        config=model_config,
        dtype=dtype,
        attn_implementation={"": "sdpa", "text_config": SEGMENTED},
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are named below, instead of one at a time in a log
    )
    revision = policy.model_revision if weights == model else None  # it names one of the model's own repository
    module, info = _from_pretrained(load, weights, revision, policy.trust_remote_code)
    refuse_incomplete(weights, missing=info["missing_keys"], mismatched=info["mismatched_keys"])
    text_config = module.config.get_text_config()
    if hasattr(text_config, "output_router_logits"):
        text_config.output_router_logits = False
    return module.to(device)  # type: ignore[no-any-return]


def _check_folder(model: str, patterns: Sequence[str]) -> None:
    """Raise ConfigError for a local folder without any of the files looked for, and for a path that does not exist."""
    folder = Path(model)
    if folder.is_dir():
        if not any(path for pattern in patterns for path in folder.glob(pattern)):
            raise ConfigError(f"{folder}: no weights or config of a model here; looked for {' or '.join(patterns)}")
    elif folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ConfigError(f"{model}: no such folder (a hub name has the form owner/name)")


def _from_pretrained(load: Callable[..., Part], model: str, revision: str | None, trust_remote_code: bool) -> Part:
    source = {"revision": revision} if revision else {}
    try:
        return load(model, trust_remote_code=trust_remote_code, **source)
    except SafetensorError as error:
        raise DataError(f"{model}: damaged weights: {error}; fetch the checkpoint again") from error
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ConfigError(f"{model}: cannot be loaded as a model folder or a hub name: {error}") from error


def refuse_incomplete(model: str, *, missing: Iterable[str], mismatched: Iterable[object]) -> None:
    """Raise DataError naming the weights that a checkpoint lacks, or that have another shape."""
    for what, keys in (("missing", sorted(missing)), ("of another shape", sorted(map(str, mismatched)))):
        if keys:
            more = f" and {len(keys) - NUM_KEYS_SHOWN} more" if len(keys) > NUM_KEYS_SHOWN else ""
            raise DataError(
                f"{model}: {len(keys)} weights are {what}: {', '.join(keys[:NUM_KEYS_SHOWN])}{more}; "
                "training would start from random values there"
            )


def enable_gradient_checkpointing(module: nn.Module, *, selective: bool = False) -> None:
    """Recompute each layer's activations in the backward pass: less memory, the same gradients.

    ``selective`` keeps the results of matrix products and attention, and recomputes the cheap rest.
    """
    if not isinstance(module, PreTrainedModel):
        raise TypeError(f"not a transformers model: {type(module).__name__}")
    settings: dict[str, Any] = {"use_reentrant": False}
    if selective:
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_products)
    model: Any = module
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)


def _keep_products(_context: Any, operator: Any, *_arguments: Any, **_settings: Any) -> CheckpointPolicy:
    name = operator.name().partition("::")[2].partition(".")[0]
    keeps = name in KEPT_OPERATORS or name.startswith(KEPT_ATTENTION)
    return CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.PREFER_RECOMPUTE


def export_model(
    module: nn.Module, model_source: str, folder: Path, *, state_dict: dict[str, Tensor] | None = None
) -> None:
    """Write ``module`` with the tokenizer, processor and template files of ``model_source`` to ``folder``.

    Appears whole, by rename. Raises ConfigError when ``folder`` exists, StorageError when the disk does not take it.
    ``state_dict`` stands in for the module's own.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: exists already; an export never overwrites")
    if not isinstance(module, PreTrainedModel):
        raise TypeError(f"not a transformers model: {type(module).__name__}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            module.save_pretrained(staging, state_dict=state_dict)
            _copy_processor(model_source, staging)
            staging.chmod(0o755)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error


def _copy_processor(model_source: str, folder: Path) -> None:
    """The files of a local base model are copied as they are; those of a hub model are written by its processor."""
    source = Path(model_source)
    if not source.is_dir():
        read_processor(model_source).save_pretrained(folder)
        return
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith(".") and not any(path.match(name) for name in MODEL_FILES):
            shutil.copyfile(path, folder / path.name)
