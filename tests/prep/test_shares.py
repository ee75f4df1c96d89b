"""Shares are exact, draws are within one of exact."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from vlm_prep.shares import draws, population, shares

WEIGHTS = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(1e-6, 1e6), min_size=1, max_size=8)


@given(weights=WEIGHTS, epoch_samples=st.integers(1, 10_000))
def test_draws_sum_to_the_epoch_and_are_within_one_of_exact(weights: dict[str, float], epoch_samples: int) -> None:
    exact = shares(weights)
    counts = draws(exact, epoch_samples)
    assert sum(exact.values()) == 1
    assert sum(counts.values()) == epoch_samples
    assert all(abs(counts[name] - exact[name] * epoch_samples) < 1 for name in exact)


@given(weights=WEIGHTS, epoch_samples=st.integers(1, 1000))
def test_draws_do_not_depend_on_the_order_of_the_datasets(weights: dict[str, float], epoch_samples: int) -> None:
    backwards = dict(reversed(weights.items()))
    assert draws(shares(weights), epoch_samples) == draws(shares(backwards), epoch_samples)


def test_equal_remainders_go_by_name() -> None:
    assert draws({name: Fraction(1, 3) for name in "cab"}, 4) == {"a": 2, "b": 1, "c": 1}


def test_repeats_count_for_the_population_and_fractions_do_not() -> None:
    assert [population(10, factor) for factor in (0.5, 1.0, 2.5)] == [10, 10, 25]


def test_the_largest_remainder_gets_the_last_draw() -> None:
    assert draws({"a": Fraction(1, 10), "b": Fraction(9, 10)}, 1) == {"a": 0, "b": 1}
