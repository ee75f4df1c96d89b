"""The optimizer of a run, as ``[train] optm_*`` names it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """What the TOML says of the optimizer; weight decay acts on every trainable parameter."""

    lr: float
    impl: Literal["fused", "foreach", "for-loop"]
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float
    grad_norm_clip: float
    """Largest norm of the gradient over all parameters; 0: no clipping."""


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> Optimizer:
    """AdamW, the one that is built, over the trainable parameters."""
    return AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=settings.impl == "fused",
        foreach=settings.impl == "foreach",
    )


def set_hyperparameters(optimizer: Optimizer, settings: OptimizerSettings) -> None:
    """Let the TOML of today win over the numbers that a checkpoint carries."""
    for group in optimizer.param_groups:
        group.update(betas=settings.betas, eps=settings.epsilon, weight_decay=settings.weight_decay)
        group.update(fused=settings.impl == "fused", foreach=settings.impl == "foreach")


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Use ``lr`` in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Iterable[nn.Parameter], *, max_norm: float) -> Tensor:
    """The norm of the gradient before clipping; a ``max_norm`` of 0 measures only."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    if max_norm > 0 and bool(torch.isfinite(norm)):
        nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
    return norm
