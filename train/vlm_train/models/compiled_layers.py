"""Layers through torch.compile: which parts of a model are compiled, and which run as they are between them.

transformers recomputes a layer by calling its forward inside torch's checkpoint, which torch.compile takes whole or not
at all: of a layer compiled by ``Module.compile`` nothing is compiled then, because attention over samples of their own
lengths needs numbers on the way. So what is compiled here is the forward below the recomputation, one function for all
layers of a class. Modules keep their classes, names and hooks, so checkpoints and exports do not know of it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_train.models.expert_parallel import experts_of
from vlm_train.models.packed_layers import SEGMENTED, mamba_mixers, segmented_attention

TEXT_LAYERS = (
    "Qwen3VLTextDecoderLayer",
    "Qwen3VLMoeTextDecoderLayer",
    "NemotronHBlock",
    "Cosmos3EdgeTextDecoderLayer",
)
VISION_LAYERS = ("Qwen3VLVisionBlock", "Qwen3VLMoeVisionBlock", "RadioLayer", "Cosmos3EdgeVisionEncoderLayer")
VISION_ATTENTION = (
    "Qwen3VLVisionAttention",
    "Qwen3VLMoeVisionAttention",
    "RadioAttention",
    "Cosmos3EdgeVisionAttention",
)
"""Splits by the patches of each frame, which are numbers on the device."""
MAX_VARIANTS = 64
"""Compiled forms of one function: one row or several, packed or not, training or not, for each class of layers. A layer
that needs more runs uncompiled. torch's own limit of 8 is shared by all of them."""
BACKEND = "inductor"
KEY = "train.compile"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledLayers:
    """How many layers of a module are compiled."""

    text: int
    vision: int
    mamba: int
    """Left as they are."""

    def line(self) -> str:
        """One line for people."""
        left = f"; {self.mamba} Mamba layers run as they are: by segments, or in kernels of their own"
        return (
            f"compile: {self.text} layers of the text model and {self.vision} of the vision tower, on first use "
            f"({BACKEND}); attention and experts run as they are{left if self.mamba else ''}"
        )


def is_to_compile(config: Config, device: torch.device) -> bool:
    """``[train] compile``: what the TOML says, and where it says nothing on CUDA alone."""
    return config.train.compile and (device.type == "cuda" or KEY in config.lines)


def refuse_compile(config: Config, device: torch.device) -> None:
    """Raise ConfigError where the machine has nothing to compile with."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    where = f"{config.where(KEY)}: {KEY}"
    if device.type == "cuda" and not has_triton():
        raise ConfigError(f"{where}: torch.compile needs triton for this GPU; install it, or set it to false")
    if device.type == "cpu":
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ConfigError(
                f"{where}: torch.compile needs a C++ compiler on a CPU, and there is none: install g++ (or name one in "
                "CXX), or set it to false"
            ) from error


def compile_layers(module: nn.Module) -> CompiledLayers:
    """Let the layers of ``module`` run compiled, in place; before its parameters are sharded."""
    torch._dynamo.config.recompile_limit = MAX_VARIANTS
    torch._dynamo.config.accumulated_recompile_limit = MAX_VARIANTS * len(TEXT_LAYERS)
    as_it_is: Any = torch.compiler.disable
    AttentionInterface.register(SEGMENTED, as_it_is(segmented_attention))
    for one in (*experts_of(module), *(one for one in module.modules() if type(one).__name__ in VISION_ATTENTION)):
        one.forward = as_it_is(one.forward)
    with_mamba = {id(one) for one in mamba_mixers(module)}
    compiled: dict[type[nn.Module], Callable[..., Any]] = {}
    found: Counter[str] = Counter()
    for layer in module.modules():
        kind = type(layer).__name__
        if kind not in TEXT_LAYERS + VISION_LAYERS:
            continue
        if id(getattr(layer, "mixer", None)) in with_mamba:
            found["mamba"] += 1
            continue
        plain = _below_recomputation(type(layer))
        if type(layer) not in compiled:
            compiled[type(layer)] = torch.compile(plain, dynamic=True, backend=BACKEND)
        layer.forward = MethodType(partial(_run_layer, compiled[type(layer)], plain), layer)
        found["text" if kind in TEXT_LAYERS else "vision"] += 1
    return CompiledLayers(text=found["text"], vision=found["vision"], mamba=found["mamba"])


def _below_recomputation(kind: type[nn.Module]) -> Callable[..., Any]:
    """The forward of a class of transformers' layers without what recomputes it in the backward pass."""
    below: Callable[..., Any] = kind.forward.__wrapped__  # type: ignore[attr-defined]
    return below


def _run_layer(compiled: Callable[..., Any], plain: Callable[..., Any], layer: Any, *states: Any, **more: Any) -> Any:
    """A layer as transformers runs it, recomputed where it is to be."""
    if more.get("past_key_values") is not None:  # writing answers: each token has its own lengths
        return plain(layer, *states, **more)
    run = partial(compiled, layer, **more)
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(run, *states)
    return run(*states)
