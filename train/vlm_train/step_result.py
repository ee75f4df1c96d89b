"""What one step came to: issued to the device now, read later, when the device is done with it and nobody waits.

Tensor names carry their shape: S samples, D datasets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from vlm_train.guard import Verdict
from vlm_train.models.family import Batch
from vlm_train.moe import RouterHealth, router_health
from vlm_train.moment import Moment


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
class DatasetTotals:
    """What the samples of one dataset add to a step, over all ranks."""

    loss_sum: float
    num_supervised_tokens: int
    num_tokens: int
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The numbers of one step, those of all ranks but for ``samples``."""

    loss: float
    """What is trained: the mean over the supervised tokens of the step, or over its groups the mean of each."""
    grad_norm: float
    """Before clipping."""
    verdict: Verdict
    """Anything but GOOD left weights, optimizer and expert biases as they were."""
    num_supervised_tokens: int
    num_tokens: int
    """Without padding and empty rows."""
    num_padding: int
    """Padding and empty rows."""
    aux_loss: float | None
    """The auxiliary loss of the routers, coefficient included; None where there is none. No part of ``loss``."""
    samples: tuple[SampleLoss, ...]
    """Every sample that this rank had in the step, in the order of its rows, empty rows apart."""
    datasets: Mapping[str, DatasetTotals]
    """Of the datasets that were asked for and have a sample in the step."""
    also: tuple[float, ...]
    """The sums over the ranks of what ``take_step`` was given to add up."""
    router_health: RouterHealth | None
    """Where it was asked for and there are routers."""


DATASET_NUMBERS = 4
"""Loss, supervised tokens, tokens, samples."""


def dataset_sums(batches: Sequence[Batch], sums_S: Tensor, *, datasets: Sequence[str]) -> Tensor:
    """Loss, supervised tokens, tokens and samples of each dataset as one tensor (4 x D) in fp64, of this rank."""
    places = {name: place for place, name in enumerate(datasets)}
    nowhere = len(datasets)  # empty rows, and what is not asked for
    numbers = [places.get(name, nowhere) for batch in batches for name in batch.datasets]
    lengths = [length for batch in batches for length in batch.lengths]
    counts = [torch.bincount(batch.samples_N, minlength=len(batch.sample_ids)) for batch in batches]
    of_host = torch.stack([torch.cat(counts).double(), torch.tensor(lengths).double(), torch.ones(len(lengths))])
    places_S = torch.tensor(numbers).to(sums_S.device, non_blocking=True)
    each = torch.cat([sums_S[None], of_host.to(sums_S.device, non_blocking=True)])
    summed = each.new_zeros(DATASET_NUMBERS, nowhere + 1).index_add_(1, places_S, each)
    return summed[:, :nowhere].flatten()


class PendingStep:
    """A step that the device is at, or done with."""

    def __init__(
        self,
        batches: Sequence[Batch],
        *,
        datasets: Sequence[str],
        has_aux_loss: bool,
        numbers: Tensor,
        also: Tensor,
        dataset_sums: Tensor,
        sums_S: Tensor,
        loads: Sequence[Tensor],
    ) -> None:
        """``numbers``: verdict, gradient norm, loss, auxiliary loss, supervised tokens, tokens, padding.

        ``loads``: of each router.
        """
        self._batches = [replace(batch, media=()) for batch in batches]  # pixels are not kept for names
        self._datasets = tuple(datasets)
        self._has_aux_loss = has_aux_loss
        parts = [numbers, also, dataset_sums, sums_S, *(load.double() for load in loads)]
        self._sizes = [len(part) for part in parts]
        self._values = _on_its_way(torch.cat(parts))
        self.ended = Moment(numbers.device)

    def result(self) -> StepResult:
        """The numbers, once the device has them: this waits until then."""
        self.ended.wait()
        numbers, also, of_datasets, sums, *loads = (part.tolist() for part in torch.split(self._values, self._sizes))
        verdict, grad_norm, loss, aux_loss, num_supervised, num_tokens, num_padding = numbers
        return StepResult(
            loss=loss,
            grad_norm=grad_norm,
            verdict=Verdict(int(verdict)),
            num_supervised_tokens=int(num_supervised),
            num_tokens=int(num_tokens),
            num_padding=int(num_padding),
            aux_loss=aux_loss if self._has_aux_loss else None,
            samples=sample_losses(self._batches, sums),
            datasets=_totals(self._datasets, of_datasets),
            also=tuple(also),
            router_health=router_health(loads),
        )


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


def _totals(datasets: Sequence[str], values: Sequence[float]) -> dict[str, DatasetTotals]:
    size = len(datasets)
    columns = [values[number * size : (number + 1) * size] for number in range(DATASET_NUMBERS)]
    return {
        name: DatasetTotals(
            loss_sum=loss, num_supervised_tokens=int(supervised), num_tokens=int(tokens), num_samples=int(samples)
        )
        for name, loss, supervised, tokens, samples in zip(datasets, *columns, strict=True)
        if samples
    }


def _on_its_way(values: Tensor) -> Tensor:
    """``values`` on the CPU once the device has come to this point; nobody waits for it here."""
    if values.device.type == "cpu":
        return values
    arrived = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return arrived.copy_(values, non_blocking=True)
