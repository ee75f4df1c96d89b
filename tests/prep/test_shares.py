"""Shares are exact, draws are within one of exact."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from vlm_prep.shares import DatasetDraws, Selected, dataset_draws, draws, population, shares

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


def selected(
    weight: float = 1.0, num_samples: int = 10, num_tokens: int = 1000, repeat_factor: float = 1.0
) -> Selected:
    return Selected(weight=weight, num_samples=num_samples, num_tokens=num_tokens, repeat_factor=repeat_factor)


def test_repeats_draw_every_dataset_as_often_as_its_weight_says() -> None:
    mix = {"a": selected(0.5), "b": selected(2.25), "c": selected(1, repeat_factor=3), "d": selected(0.01)}
    planned = dataset_draws(mix, weight_unit="repeats")
    assert {name: one.num_draws for name, one in planned.items()} == {"a": 5, "b": 22, "c": 30, "d": 0}
    assert planned["a"].share == Fraction(5, 57)


def test_weights_of_tokens_share_out_the_tokens() -> None:
    mix = {"a": selected(1, num_tokens=1000), "b": selected(3, num_samples=2, num_tokens=3000, repeat_factor=2)}
    planned = dataset_draws(mix, weight_unit="tokens")
    assert [(one.draw_tokens, one.num_draws) for one in planned.values()] == [(1750, 18), (5250, 4)]
    planned = dataset_draws(mix, weight_unit="tokens", epoch_tokens=10)
    assert [(one.draw_tokens, one.num_draws) for one in planned.values()] == [(3, 1), (7, 1)]


def test_weights_of_samples_share_out_the_population() -> None:
    mix = {"a": selected(1), "b": selected(1, repeat_factor=2)}
    assert {name: one.num_draws for name, one in dataset_draws(mix).items()} == {"a": 15, "b": 15}
    assert dataset_draws(mix, epoch_samples=3)["a"] == DatasetDraws(share=Fraction(1, 2), num_draws=2)
