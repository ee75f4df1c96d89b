"""Gradients of whole steps by the real trainer, in this process or (``main``) in one of several ranks together.

Weights never change (a learning rate of 0 and no decay), so every step has a reference that is a sum over samples.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vlm_catalogs.config import load_config
from vlm_catalogs.hashing import content_hash
from vlm_train.load import load_family_of, load_trainer
from vlm_train.models import compiled_layers
from vlm_train.models.family import EncodedSample
from vlm_train.moe import BIAS
from vlm_train.ranks import Ranks, join, leave, ranks_of

TOML = """
[custom]
enable_moe_load_balancing_training = false

[train]
optm_lr = 0.0
optm_weight_decay = 0.0
optm_grad_norm_clip = 0.0
param_dtype = "float32"

[train.train_policy]
mini_batch = 1

[policy]
model_name_or_path = "{model}"
model_gradient_checkpointing = false
"""
Row = tuple[int, ...]
"""Numbers of the samples that stand in it."""
MicroBatch = tuple[Row, ...]


@dataclass(frozen=True)
class Way:
    """One setting of the trainer, and the steps that it takes: for each rank its micro-batches."""

    name: str
    steps: tuple[tuple[tuple[MicroBatch, ...], ...], ...]
    settings: tuple[str, ...] = ()
    watched: bool = False
    """Count the collective calls, and hash every tensor of the module afterwards."""
    backend: str = "inductor"
    """Of torch.compile, where ``settings`` ask for it."""


@dataclass(frozen=True)
class Found:
    """What one step gave, the same on every rank."""

    loss: float
    grad_norm: float
    aux_loss: float | None
    gradient: dict[str, torch.Tensor] = field(repr=False)
    losses: dict[str, float]
    """Of the samples of the first rank."""
    biases: dict[str, torch.Tensor] = field(repr=False, default_factory=dict)
    """Selection biases of the routers after the step."""
    traffic: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Collective calls of the first rank on tensors: (operator, type of what it was given) -> how many."""
    types: frozenset[str] = frozenset()
    """Of the parameters that are kept, and of their gradients."""
    hashes: dict[str, str] = field(repr=False, default_factory=dict)
    """Of every parameter and buffer after the step."""


def type_name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


class Traffic(TorchDispatchMode):
    """Counts the collective calls inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "c10d":
            tensors = [one for one in torch.utils._pytree.tree_leaves(args) if isinstance(one, torch.Tensor)]
            self.seen[(function.__name__.partition(".")[0].strip("_"), type_name(tensors[-1]))] += 1
        return function(*args, **(kwargs or {}))


def write_plan(folder: Path, model: Path, samples: Sequence[EncodedSample], ways: Sequence[Way]) -> None:
    """What ``take_ways`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(TOML.format(model=model))
    torch.save({"samples": list(samples), "ways": list(ways)}, folder / "plan.pt")


def take_ways(folder: Path, ranks: Ranks | None = None) -> dict[str, list[Found]]:
    """Every step of every way, by the name of the way."""
    plan = torch.load(folder / "plan.pt", weights_only=False)
    return {way.name: take_steps(folder, plan["samples"], way, ranks) for way in plan["ways"]}


def take_steps(folder: Path, samples: Sequence[EncodedSample], way: Way, ranks: Ranks | None) -> list[Found]:
    """The steps of one way, with a module of its own."""
    config = load_config(folder / "config.toml", overrides=list(way.settings))
    family: Any = load_family_of(config)
    ranks = ranks or ranks_of(config)
    compiled_layers.BACKEND = way.backend
    trainer, _ = load_trainer(config, family, ranks)
    found = []
    for step in way.steps:
        batches = [family.collate([[samples[one] for one in row] for row in batch]) for batch in step[ranks.rank]]
        traffic = Traffic()
        with traffic if way.watched else nullcontext():
            result = trainer.take_step(batches).result()
        trained = {name: one for name, one in trainer.module.named_parameters() if one.requires_grad}
        gradient = {name: _whole(parameter.grad) for name, parameter in trained.items()}
        losses = {one.sample_id: one.loss_sum for one in result.samples}
        biases = {name: one.clone() for name, one in trainer.module.named_buffers() if name.endswith(BIAS)}
        kept = frozenset(type_name(one) for parameter in trained.values() for one in (parameter, parameter.grad))
        hashes = tensor_hashes(trainer.module) if way.watched else {}
        numbers = (result.loss, result.grad_norm, result.aux_loss)
        found.append(Found(*numbers, gradient, losses, biases, traffic.seen, kept, hashes))
    return found


def tensor_hashes(module: torch.nn.Module) -> dict[str, str]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: content_hash(bytes(_whole(one.detach()).view(torch.uint8).numpy())) for name, one in named}


def _whole(gradient: Any) -> torch.Tensor:
    assert gradient is not None
    full = getattr(gradient, "full_tensor", None)
    return (gradient if full is None else full()).clone()


def main() -> None:
    """A rank: reads plan.pt of the folder that it is called with; the first one writes found.pt."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ranks = ranks_of(load_config(folder / "config.toml"))
    join(ranks)
    try:
        found = take_ways(folder)
        if ranks.is_first:
            torch.save(found, folder / "found.pt")
        ranks.wait()
    finally:
        leave(ranks)
