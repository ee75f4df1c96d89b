"""The optimizer of a run, as ``[train] optm_*`` names it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from vlm_catalogs.errors import ConfigError

OPTIMIZERS: dict[str, type[Adam]] = {"AdamW": AdamW, "Adam": Adam}
IMPLEMENTATIONS = ("fused", "foreach", "for-loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """What the TOML says of the optimizer; weight decay acts on every trainable parameter."""

    name: str
    lr: float
    impl: str
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float
    grad_norm_clip: float
    """Largest norm of the gradient over all parameters; 0: no clipping."""


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> Optimizer:
    """The optimizer over the trainable parameters. Raises ConfigError for an unknown name or implementation."""
    if settings.name not in OPTIMIZERS:
        raise ConfigError(f"train.optm_name: expected one of {', '.join(OPTIMIZERS)}, got {settings.name!r}")
    if settings.impl not in IMPLEMENTATIONS:
        raise ConfigError(f"train.optm_impl: expected one of {', '.join(IMPLEMENTATIONS)}, got {settings.impl!r}")
    return OPTIMIZERS[settings.name](
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
