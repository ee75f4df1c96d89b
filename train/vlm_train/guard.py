"""Is a step bad? Decided on the device, from numbers that are the same on every rank, before the weights change.

A step is bad when its loss or its gradient is not finite, and, where ``[train] spike_mads`` asks, when its loss is a
spike by the rule of ``spikes``. Nothing here waits for the device; the answer is read a step later.
"""

import math
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from vlm_train.spikes import FEWEST_BEFORE, WINDOW


class Verdict(IntEnum):
    """What a step was found to be; on the device it is a number."""

    GOOD = 0
    LOSS_NOT_FINITE = 1
    GRADIENT_NOT_FINITE = 2
    SPIKE = 3


class StepGuard:
    """Judges the steps of a run in their order."""

    def __init__(self, device: torch.device, *, spike_mads: float = 0.0) -> None:
        self._spike_mads = spike_mads
        self._losses = torch.full((WINDOW,), math.nan, dtype=torch.float64, device=device)
        self._num_judged = 0
        self.num_skipped = 0
        """Steps that were skipped since the run began, as far as they have been read."""
        self.num_in_a_row = 0
        """Of these the last ones, when nothing stood between."""

    def judge(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """The Verdict on a step as a number () in fp32, given its loss and gradient norm, each () in fp64."""
        verdict = torch.where(torch.isfinite(grad_norm), float(Verdict.GOOD), float(Verdict.GRADIENT_NOT_FINITE))
        if self._spike_mads > 0:
            verdict = torch.where(self._is_spike(loss) & (verdict == Verdict.GOOD), float(Verdict.SPIKE), verdict)
        return torch.where(torch.isfinite(loss), verdict, float(Verdict.LOSS_NOT_FINITE)).float()

    def count(self, *, is_skipped: bool) -> None:
        """Take in what became of the next step that was read."""
        self.num_skipped += is_skipped
        self.num_in_a_row = self.num_in_a_row + 1 if is_skipped else 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run judges as one that was not; waits for the device."""
        losses = self._losses.roll(-self._num_judged % WINDOW).tolist()
        kept = losses[-self._num_judged :] if 0 < self._num_judged < WINDOW else losses * bool(self._num_judged)
        return {
            "losses": [loss if math.isfinite(loss) else None for loss in kept],
            "skipped": self.num_skipped,
            "in_a_row": self.num_in_a_row,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state``; an empty one, as checkpoints before there was a guard have, changes nothing."""
        losses: Sequence[float | None] = state.get("losses", [])[-WINDOW:]
        values = [math.nan if loss is None else loss for loss in losses]
        self._losses[: len(values)] = torch.tensor(values, dtype=torch.float64)
        self._num_judged = len(values)
        self.num_skipped, self.num_in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)

    def _is_spike(self, loss: Tensor) -> Tensor:
        """Against the losses before; then ``loss`` is one of them."""
        before_W = self._losses
        middle = _median(before_W)
        spread = _median((before_W - middle).abs())
        enough = torch.isfinite(before_W).sum() >= FEWEST_BEFORE
        is_spike = enough & (loss > middle + self._spike_mads * spread)
        before_W[self._num_judged % WINDOW] = torch.where(torch.isfinite(loss), loss, math.nan)
        self._num_judged += 1
        return is_spike


def _median(values_W: Tensor) -> Tensor:
    """The median () of what is finite, the mean of the middle two where these are even; NaN where nothing is."""
    sorted_W = torch.sort(values_W).values  # NaN comes last
    count = torch.isfinite(values_W).sum()
    lower, upper = ((count - 1) // 2).clamp(min=0), count // 2
    return (sorted_W.gather(0, lower[None]) + sorted_W.gather(0, upper[None]))[0] / 2
