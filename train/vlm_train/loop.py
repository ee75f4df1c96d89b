"""One optimizer step: the loss of a whole step, its gradient, the guard, the update.

The loss is the sum over supervised tokens divided by their number in the whole step, so micro-batches weigh by tokens.
Tensor names carry their shape: B rows, T tokens, D width, N supervised tokens, S samples.
"""

import math
import random
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import order_key
from vlm_train.aux_loss import AuxLoss
from vlm_train.loss import sample_sums
from vlm_train.models.expert_parallel import ExpertGroup
from vlm_train.models.family import Batch
from vlm_train.moe import RouterWatch
from vlm_train.optimizer import clip_gradients
from vlm_train.ranks import ALONE, Ranks
from vlm_train.shard_parameters import WholeForward, defer_reduction
from vlm_train.writer import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """The two types of a run on one process: master weights, and what forward and backward compute in."""

    master: torch.dtype
    """Type of the weights, their gradients and the optimizer's state."""
    compute: torch.dtype
    """Type of matrix products; torch.autocast casts for them where it differs from ``master``."""

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """What the forward pass runs in."""
        if self.compute == self.master:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLoss:
    """What one sample adds to the loss of its step."""

    dataset: str
    sample_id: str
    loss_sum: float
    """Over its supervised tokens; exact when it stands in a packed row too."""
    num_supervised_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The numbers of one step."""

    loss: float
    """Mean over the supervised tokens of the step."""
    grad_norm: float
    """Before clipping."""
    num_supervised_tokens: int
    num_tokens: int
    """Without padding and empty rows."""
    num_padding: int
    """Padding and empty rows."""
    aux_loss: float | None
    """The auxiliary loss of the routers, coefficient included; None where there is none. No part of ``loss``."""
    samples: tuple[SampleLoss, ...]
    """Every sample that this rank had in the step, in the order of its rows, empty rows apart."""


class Trainer:
    """A module, its family and its optimizer; takes one step at a time."""

    def __init__(
        self,
        whole: WholeForward,
        optimizer: Optimizer,
        *,
        precision: Precision,
        grad_norm_clip: float,
        balance_experts: bool = False,
        aux_loss_coeff: float = 0.0,
        experts: ExpertGroup | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.module = whole.module
        self.optimizer = optimizer
        self.routers = RouterWatch(whole.module)
        self._balance = balance_experts and self.routers.can_balance
        self._aux_coeff = aux_loss_coeff if self.routers.routers else 0.0
        self._whole = whole
        self._precision = precision
        self._grad_norm_clip = grad_norm_clip
        self._experts = experts
        self._ranks = ranks
        self._trained = [parameter for parameter in whole.parameters() if parameter.requires_grad]
        self._device = self._trained[0].device

    def take_step(self, batches: Sequence[Batch], *, step: int) -> StepResult:
        """Update the weights by one step, of whose micro-batches ``batches`` are those of this rank.

        The numbers of the result are those of all ranks, its samples those of this one. Raises DataError, on every rank
        and before anything is updated, when the loss or the gradient is not finite.
        """
        num_supervised = int(self._summed([sum(batch.num_supervised_tokens for batch in batches)])[0])
        self.optimizer.zero_grad(set_to_none=True)
        chosen = self._loads_of_step(batches) if self._aux_coeff and len(batches) > 1 else None
        sums, aux = [], torch.zeros(1, dtype=torch.float64, device=self._device)
        for number, batch in enumerate(batches, start=1):
            defer_reduction(self._whole, more=number < len(batches))
            sums.append(self._add_gradient(batch, num_supervised, chosen, aux))
        norm = clip_gradients(self._trained, max_norm=self._grad_norm_clip)
        # All numbers of the step leave the device at once: this is the one place where it is waited for.
        *losses, aux_loss, grad_norm = torch.cat([*sums, aux, norm.double().reshape(1)]).tolist()
        samples = sample_losses(batches, losses)
        counts = [sum(batch.num_tokens for batch in batches), sum(batch.num_padding for batch in batches)]
        loss_sum, num_tokens, num_padding, aux_loss = self._summed([sum(losses), *counts, aux_loss])
        loss = loss_sum / max(1, num_supervised)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            refuse_non_finite(loss, grad_norm, samples=self._ranks.gather(list(samples)), step=step)
        self.optimizer.step()
        loads = self.routers.step_loads()
        if loads is not None:
            self._ranks.add_up(loads)
        self.routers.end_step(balance=self._balance)
        return StepResult(
            loss=loss,
            grad_norm=grad_norm,
            num_supervised_tokens=num_supervised,
            num_tokens=int(num_tokens),
            num_padding=int(num_padding),
            aux_loss=aux_loss if self._aux_coeff else None,
            samples=samples,
        )

    def measure(self, batches: Iterable[Batch]) -> list[SampleLoss]:
        """The losses of the samples of ``batches`` with the weights as they are; nothing changes.

        All ranks call it with as many batches.
        """
        was_training = self._whole.training
        self._whole.eval()
        try:
            with torch.no_grad():
                return [loss for batch in batches for loss in sample_losses([batch], self._losses(batch).tolist())]
        finally:
            self._whole.train(was_training)

    def writer(self) -> Writer:
        """What writes answers with the weights as they are."""
        return Writer(whole=self._whole, precision=self._precision, experts=self._experts, ranks=self._ranks)

    def _losses(self, batch: Batch) -> Tensor:
        """The loss (S,) of each sample of a batch."""
        on_device = batch.to(self._device)
        self._begin(on_device)
        with self._precision.context(self._device):
            losses_N = self._whole(on_device)
        return sample_sums(losses_N, on_device.samples_N, num_samples=len(batch.sample_ids))

    def _begin(self, on_device: Batch) -> None:
        """What ranks that share experts agree on before each forward pass."""
        if self._experts is not None:
            self._experts.begin(on_device.input_ids_BT.numel())

    def _summed(self, values: Sequence[float]) -> list[float]:
        """Each value, summed over the ranks; between CPUs, so that no device is waited for."""
        if self._ranks.is_alone:
            return list(values)
        return self._ranks.add_up(torch.tensor(values, dtype=torch.float64)).tolist()

    def _add_gradient(self, batch: Batch, num_supervised: int, chosen: Tensor | None, aux: Tensor) -> Tensor:
        """The loss (S,) of each sample of the micro-batch; its part of the step's gradient is added up, ``aux`` too."""
        on_device = batch.to(self._device)
        losses_N = self._forward(on_device)
        loss = losses_N.sum() / max(1, num_supervised)
        if self._aux_coeff:
            router = self.routers.routers[0]
            loads_E = self._loads_so_far() if chosen is None else chosen
            whole = AuxLoss(coefficient=self._aux_coeff, loads_E=loads_E, experts_per_token=router.top_k)
            part = whole.part(self.routers.probability_sum())
            aux += part.detach()
            loss = loss + part
        torch.autograd.backward(loss)
        return sample_sums(losses_N, on_device.samples_N, num_samples=len(batch.sample_ids))

    def _forward(self, on_device: Batch) -> Tensor:
        self._begin(on_device)
        counting = self.routers.counting(on_device.is_real_BT, with_probabilities=bool(self._aux_coeff))
        with self._precision.context(self._device), counting:
            losses_N: Tensor = self._whole(on_device)
        return losses_N

    def _loads_of_step(self, batches: Sequence[Batch]) -> Tensor:
        """Tokens of each expert over the whole step, from forward passes before the one that trains."""
        with torch.no_grad():
            for batch in batches:
                self._forward(batch.to(self._device))
        loads_E = self._loads_so_far()
        self.routers.clear_step()
        return loads_E

    def _loads_so_far(self) -> Tensor:
        """Tokens of each expert, over layers and ranks, of the passes counted since the last step."""
        return self._ranks.add_up(self.routers.layer_sum())


def sample_losses(batches: Sequence[Batch], sums: Sequence[float]) -> tuple[SampleLoss, ...]:
    """The loss of each sample of the micro-batches beside its name; ``sums`` has one for each, empty rows too."""
    counts = [torch.bincount(batch.samples_N, minlength=len(batch.sample_ids)).tolist() for batch in batches]
    named = zip(
        chain.from_iterable(zip(batch.datasets, batch.sample_ids, batch.lengths, strict=True) for batch in batches),
        sums,
        chain.from_iterable(counts),
        strict=True,
    )
    return tuple(
        SampleLoss(
            dataset=dataset, sample_id=sample_id, loss_sum=loss_sum, num_supervised_tokens=count, num_tokens=length
        )
        for (dataset, sample_id, length), loss_sum, count in named
        if sample_id
    )


def refuse_non_finite(loss: float, norm: float, *, samples: Sequence[SampleLoss], step: int) -> None:
    """Raise DataError naming step and samples when a loss or the gradient is not finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    broken = [sample for sample in samples if not math.isfinite(sample.loss_sum)]
    names = ", ".join(f"{sample.dataset}/{sample.sample_id}" for sample in broken or samples)
    whose = "the loss is not finite for" if broken else "all losses are finite; the samples of the step are"
    raise DataError(
        f"step {step}: loss {loss}, gradient norm {norm}: stopped before the weights changed; {whose} {names}; "
        "look at these samples, or lower train.optm_lr"
    )


def seed_step(seed: int, step: int) -> None:
    """Seed every global generator for one step, so that a resumed run draws what an uninterrupted one would."""
    key = order_key(seed, "step", step)
    random.seed(key)
    np.random.seed(key % 2**32)  # for libraries that use it; ours do not
    torch.manual_seed(key % 2**63)
