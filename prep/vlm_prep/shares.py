"""How often each dataset is drawn in an epoch (semantics B2, B3): exact arithmetic, no randomness."""

from collections.abc import Mapping
from fractions import Fraction


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
