"""The optimizer of a run, as ``[train] optm_*`` names it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from vlm_catalogs.errors import ConfigError
from vlm_train.shard_parameters import whole_number
from vlm_train.trainable import nearest_names

EVERYTHING_ELSE = "default"
"""The entry of ``optm_lr`` for parameters that no pattern matches."""
BASE_LR = "base_lr"
"""The key of a group's learning rate before warm-up and decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """What the TOML says of the optimizer; weight decay acts on every trainable parameter."""

    lr: Mapping[str, float]
    """Regex on parameter names -> learning rate; the first that matches counts, ``default`` takes all the rest."""
    impl: Literal["fused", "foreach", "for-loop"]
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float
    grad_norm_clip: float
    """Largest norm of the gradient over all parameters; 0: no clipping."""


def build_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], settings: OptimizerSettings) -> Optimizer:
    """AdamW, the one that is built, over the trainable parameters: a group for each learning rate.

    Raises ConfigError for a pattern that names no trainable parameter, and for a parameter that none names.
    """
    return AdamW(
        _groups([(name, one) for name, one in parameters if one.requires_grad], settings.lr),
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=settings.impl == "fused",
        foreach=settings.impl == "foreach",
    )


def _groups(parameters: Sequence[tuple[str, nn.Parameter]], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    grouped: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in rates}
    names = [name for name, _ in parameters]
    for name, parameter in parameters:
        pattern = next((one for one in rates if one != EVERYTHING_ELSE and re.search(one, name)), EVERYTHING_ELSE)
        if pattern not in grouped:
            raise ConfigError(
                f"train.optm_lr: no pattern matches {name}; give the rest a rate: {EVERYTHING_ELSE} = ..."
            )
        grouped[pattern].append(parameter)
    for pattern, members in grouped.items():
        if not members and pattern != EVERYTHING_ELSE:
            raise ConfigError(
                f"train.optm_lr: {pattern!r} is the rate of no trainable parameter; nearest: "
                f"{nearest_names(pattern, names)}"
            )
    return [
        {"params": alike, "lr": rates[one], BASE_LR: rates[one]}
        for one, members in grouped.items()
        for alike in by_mesh(members)
    ]


def by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters in lists of those that are spread over ranks in one way: kernels take no mixture of them."""
    alike: dict[object, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        alike[getattr(parameter, "device_mesh", None)].append(parameter)
    return list(alike.values())


def set_lr(optimizer: Optimizer, factor: float) -> float:
    """Use each group's learning rate times ``factor`` in the next step; returns the largest."""
    for group in optimizer.param_groups:
        group["lr"] = group[BASE_LR] * factor
    return float(max(group["lr"] for group in optimizer.param_groups))


def step_unless(optimizer: Optimizer, is_bad: Tensor) -> None:
    """Take the optimizer's step where ``is_bad`` () in fp32 is 0; 1 leaves weights, moments and step counts alone.

    The fused optimizer looks at it on the device, as at the flag of a loss scaler; the others have to wait for it.
    """
    if optimizer.defaults.get("fused"):
        # Offloaded parameters are stepped on the CPU, where torch would read the flag before its copy has come.
        optimizer.found_inf = is_bad.to(optimizer.param_groups[0]["params"][0].device)  # type: ignore[attr-defined]
        optimizer.step()
    elif not is_bad.item():
        optimizer.step()


def clip_gradients(parameters: Iterable[nn.Parameter], *, max_norm: float) -> Tensor:
    """The norm of the gradient before clipping; a ``max_norm`` of 0 measures only."""
    trained = by_mesh(parameter for parameter in parameters if parameter.grad is not None)
    norms = [
        whole_number(nn.utils.get_total_norm([one.grad for one in alike if one.grad is not None])) for alike in trained
    ]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if max_norm > 0:  # whether the norm is finite is asked where all numbers of the step arrive: asking here would wait
        for alike in trained:
            nn.utils.clip_grads_with_norm_(alike, max_norm, norm)
    return norm
