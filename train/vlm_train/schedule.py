"""The learning rate of each step: warm-up, plateau, decay; a pure function of the step."""

import math
from dataclasses import dataclass
from typing import Literal

DecayType = Literal["none", "linear", "cosine", "sqrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The factor on the learning rate over a run of ``total_steps``."""

    total_steps: int
    warmup_steps: int
    decay_type: DecayType = "none"
    decay_ratio: float | None = None
    """Part of the run, at its end, over which the rate falls; None: all that follows the warm-up."""
    min_lr_factor: float = 0.0
    """Factor that the decay falls towards."""

    def factor(self, step: int, *, progress: float | None = None) -> float:
        """The factor of optimizer step ``step``, from 0. Rises to 1 with the last warm-up step; > 0 unless told 0.

        ``progress`` is the part of the run that is done, where steps do not tell it: epochs of unequal length.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = step / self.total_steps if progress is None else progress
        begin = self._decay_begin()
        if self.decay_type == "none" or progress <= begin:
            return 1.0
        fallen = min(1.0, (progress - begin) / (1 - begin))
        return self.min_lr_factor + (1 - self.min_lr_factor) * _shape(self.decay_type, fallen)

    def describe(self) -> str:
        """One line for people."""
        decay = "no decay"
        if self.decay_type != "none":
            first = math.ceil(self._decay_begin() * self.total_steps)
            decay = f"{self.decay_type} decay from step {first} to {self.min_lr_factor:g} of the rate"
        return f"{self.total_steps} steps: {self.warmup_steps} of warm-up, {decay}"

    def _decay_begin(self) -> float:
        warm = min(1.0, self.warmup_steps / self.total_steps)
        return warm if self.decay_ratio is None else max(warm, 1 - self.decay_ratio)


def _shape(decay_type: DecayType, fallen: float) -> float:
    """What is left of the rate after the part ``fallen`` of the decay, in [0, 1]."""
    if decay_type == "linear":
        return 1 - fallen
    if decay_type == "sqrt":
        return 1 - math.sqrt(fallen)
    return 0.5 * (1 + math.cos(math.pi * fallen))


def warmup_steps(warmup: int | float, *, total_steps: int) -> int:
    """Warm-up in steps: an integer is steps, a float up to 1 is the part of the run, as in the TOMLs people have."""
    if isinstance(warmup, float) and warmup <= 1:
        return round(warmup * total_steps)
    return int(warmup)


def total_steps(*, steps_per_epoch: int, epochs: int, max_num_steps: int | None) -> int:
    """Where training ends: the earlier of all epochs and ``max_num_steps``."""
    whole = steps_per_epoch * epochs
    return whole if max_num_steps is None else min(whole, max_num_steps)
