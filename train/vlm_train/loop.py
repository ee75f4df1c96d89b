"""One optimizer step: the loss of a whole step, its gradient, the guard, the update.

The loss is the sum over supervised tokens divided by their number in the whole step, so micro-batches weigh by tokens.
Tensor names carry their shape: B rows, T tokens, V vocabulary, N supervised tokens.
"""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import order_key
from vlm_catalogs.render.rendered import IGNORED
from vlm_train.models.family import Batch, Family
from vlm_train.moe import RouterWatch
from vlm_train.optimizer import clip_gradients


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
    dataset_losses: dict[str, float]
    """Mean over the supervised tokens of each dataset that has any in the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLoss:
    """What one row adds to the loss."""

    dataset: str
    sample_id: str
    loss_sum: float
    num_supervised_tokens: int


class Trainer:
    """A module, its family and its optimizer; takes one step at a time."""

    def __init__(
        self,
        module: nn.Module,
        family: Family,
        optimizer: Optimizer,
        *,
        precision: Precision,
        grad_norm_clip: float,
        balance_experts: bool = False,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.routers = RouterWatch(module)
        self._balance = balance_experts and self.routers.can_balance
        self._family = family
        self._precision = precision
        self._grad_norm_clip = grad_norm_clip
        self._trained = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def take_step(self, batches: Sequence[Batch], *, step: int) -> StepResult:
        """Update the weights by the micro-batches of one step.

        Raises DataError, before anything is updated, when the loss or the gradient is not finite.
        """
        num_supervised = sum(batch.num_supervised_tokens for batch in batches)
        self.optimizer.zero_grad(set_to_none=True)
        rows = [row for batch in batches for row in self._add_gradient(batch, num_supervised)]
        norm = clip_gradients(self._trained, max_norm=self._grad_norm_clip).item()
        loss = sum(row.loss_sum for row in rows) / max(1, num_supervised)
        refuse_non_finite(loss, norm, rows=rows, step=step)
        self.optimizer.step()
        self.routers.end_step(balance=self._balance)
        return StepResult(
            loss=loss,
            grad_norm=norm,
            num_supervised_tokens=num_supervised,
            num_tokens=sum(map(_num_useful_tokens, batches)),
            num_padding=sum(batch.input_ids_BT.numel() - _num_useful_tokens(batch) for batch in batches),
            dataset_losses=dataset_losses(rows),
        )

    def _add_gradient(self, batch: Batch, num_supervised: int) -> list[RowLoss]:
        device = self._trained[0].device
        on_device = batch.to(device)
        with self._precision.context(device), self.routers.counting(on_device.is_real_BT):
            logits_BTV = self._family.logits(self.module, on_device)
        losses_N, rows_N = token_losses(logits_BTV, on_device.labels_BT)
        torch.autograd.backward(losses_N.sum() / max(1, num_supervised))
        return _row_losses(batch, losses_N.detach(), rows_N)


def token_losses(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of each supervised token in fp32, and the row it stands in. Logits t predict token t + 1."""
    supervised_BT = labels_BT[:, 1:] != IGNORED
    logits_NV = logits_BTV[:, :-1][supervised_BT].float()
    losses_N = cross_entropy(logits_NV, labels_BT[:, 1:][supervised_BT], reduction="none")
    return losses_N, supervised_BT.nonzero()[:, 0]


def dataset_losses(rows: Sequence[RowLoss]) -> dict[str, float]:
    """The mean loss over the supervised tokens of each dataset."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        sums[row.dataset] += row.loss_sum
        counts[row.dataset] += row.num_supervised_tokens
    return {name: sums[name] / counts[name] for name in sorted(sums) if counts[name]}


def refuse_non_finite(loss: float, norm: float, *, rows: Sequence[RowLoss], step: int) -> None:
    """Raise DataError naming step and samples when a loss or the gradient is not finite."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    broken = [row for row in rows if not math.isfinite(row.loss_sum)]
    names = ", ".join(f"{row.dataset}/{row.sample_id}" for row in broken or rows if row.sample_id)
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


def _num_useful_tokens(batch: Batch) -> int:
    return sum(length for length, sample_id in zip(batch.lengths, batch.sample_ids, strict=True) if sample_id)


def _row_losses(batch: Batch, losses_N: Tensor, rows_N: Tensor) -> list[RowLoss]:
    losses, rows = losses_N.double().cpu(), rows_N.cpu()
    num_rows = len(batch.lengths)
    sums = torch.zeros(num_rows, dtype=torch.float64).index_add_(0, rows, losses).tolist()
    counts = torch.bincount(rows, minlength=num_rows).tolist()
    return [
        RowLoss(dataset=dataset, sample_id=sample_id, loss_sum=loss_sum, num_supervised_tokens=count)
        for dataset, sample_id, loss_sum, count in zip(batch.datasets, batch.sample_ids, sums, counts, strict=True)
    ]
