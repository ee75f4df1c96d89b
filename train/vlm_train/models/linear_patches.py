"""Patch embedding as a matrix product.

The convolution of a Qwen tower has steps as long as its kernel, so it is a linear layer over flat patches; recent torch
runs it ten to twenty times slower on a CPU than the product. The parameters stay where they are, by name and shape.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear


def use_linear_patches(module: nn.Module) -> None:
    """Let every patch embedding of ``module`` that convolves whole patches multiply instead, in place."""
    for one in module.modules():
        if _is_patch_embedding(one):
            one.forward = MethodType(_embed, one)


def _is_patch_embedding(module: nn.Module) -> bool:
    proj = getattr(module, "proj", None)
    whole = isinstance(proj, nn.Conv3d) and proj.stride == proj.kernel_size and not any(proj.padding)
    return whole and "PatchEmbed" in type(module).__name__


def _embed(module: Any, hidden_states: Tensor) -> Tensor:
    weight = module.proj.weight.flatten(1)
    return linear(hidden_states.reshape(-1, weight.shape[1]).to(weight.dtype), weight, module.proj.bias)
