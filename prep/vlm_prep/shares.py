"""How often each dataset is drawn in an epoch (semantics B2, B3): exact arithmetic, no randomness."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """What is left of a dataset to draw from."""

    weight: float
    repeat_factor: float
    """``repeat_time``: acts on the population, not on the weight; below 1 the selection is smaller already."""
    num_samples: int
    num_tokens: int
    """Of each sample's longest conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDraws:
    """How often a dataset is drawn in an epoch."""

    share: Fraction
    num_draws: int
    """Exact by samples and repeats, about by tokens."""
    draw_tokens: int | None = None
    """By tokens: the dataset draws until its running total is nearest this."""


def dataset_draws(
    datasets: Mapping[str, Selected],
    *,
    weight_unit: Literal["samples", "tokens", "repeats"] = "samples",
    epoch_samples: int | None = None,
    epoch_tokens: int | None = None,
) -> dict[str, DatasetDraws]:
    """Dataset -> its draws. Every dataset must have samples and a weight above 0."""
    if weight_unit == "repeats":
        counts = {name: round(Fraction(one.weight) * _population(one)) for name, one in datasets.items()}
        total = max(1, sum(counts.values()))
        return {name: DatasetDraws(share=Fraction(count, total), num_draws=count) for name, count in counts.items()}
    by_weight = shares({name: one.weight for name, one in datasets.items()})
    if weight_unit == "samples":
        counts = draws(by_weight, epoch_samples or sum(map(_population, datasets.values())))
        return {name: DatasetDraws(share=by_weight[name], num_draws=count) for name, count in counts.items()}
    tokens = draws(by_weight, epoch_tokens or sum(population(o.num_tokens, o.repeat_factor) for o in datasets.values()))
    return {
        name: DatasetDraws(
            share=by_weight[name],
            num_draws=max(min(1, tokens[name]), round(Fraction(tokens[name] * one.num_samples, one.num_tokens))),
            draw_tokens=tokens[name],
        )
        for name, one in datasets.items()
    }


def _population(one: Selected) -> int:
    return population(one.num_samples, one.repeat_factor)


def shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Dataset -> weight over the sum of weights, exact."""
    total = sum((Fraction(weight) for weight in weights.values()), Fraction(0))
    return {name: Fraction(weight) / total for name, weight in weights.items()}


def population(num_selected: int, repeat_time: float) -> int:
    """How many samples a dataset counts for: repeats from 1 on; below 1 the selection is smaller already."""
    return round(num_selected * max(Fraction(repeat_time), Fraction(1)))


def draws(dataset_shares: Mapping[str, Fraction], epoch_samples: int) -> dict[str, int]:
    """Dataset -> draws of one epoch, by largest remainder: they sum to ``epoch_samples``, each within one of exact.

    Equal remainders go by name.
    """
    exact = {name: share * epoch_samples for name, share in dataset_shares.items()}
    counts = {name: int(value) for name, value in exact.items()}
    left = epoch_samples - sum(counts.values())
    for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[:left]:
        counts[name] += 1
    return counts
