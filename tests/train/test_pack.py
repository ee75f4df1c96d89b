"""Packing: every sample once, no row too long, as full as offline packing comes, a few windows late at most."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm_catalogs.errors import DataError
from vlm_train.pack import MAX_WINDOWS_OPEN, PackedSamples, Packer

ROW = 4096


def pack(windows: list[list[int]], row_tokens: int) -> list[PackedSamples]:
    packer, first, left = Packer(row_tokens), 0, []
    for number, tokens in enumerate(windows):
        draws = np.arange(first, first + len(tokens))
        left.append(packer.add(draws, np.array(tokens, np.int32), is_last=number == len(windows) - 1))
        first += len(tokens)
    return left


def fill(tokens: NDArray[np.int32], window: int) -> float:
    windows = [tokens[begin : begin + window].tolist() for begin in range(0, len(tokens), window)]
    rows = np.concatenate([left.rows for left in pack(windows, ROW)])
    return float(tokens.sum() / (ROW * len(np.unique(rows))))


@given(windows=st.lists(st.lists(st.integers(1, 700), max_size=40), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_every_sample_leaves_once_in_a_row_that_holds_it(windows: list[list[int]]) -> None:
    left = pack(windows, 700)
    tokens = np.array([length for window in windows for length in window], np.int64)
    draws = np.concatenate([one.draws for one in left])
    rows = np.concatenate([one.rows for one in left])
    assert sorted(draws.tolist()) == list(range(len(tokens)))
    assert all(tokens[draws[rows == row]].sum() <= 700 for row in set(rows.tolist()))
    for one, other in itertools.pairwise(left):
        assert not set(one.rows.tolist()) & set(other.rows.tolist())  # a row leaves whole


@given(windows=st.lists(st.lists(st.integers(1, 700), min_size=1, max_size=40), min_size=3, max_size=6))
@settings(max_examples=50, deadline=None)
def test_no_sample_waits_longer_than_a_row_may_stay_open(windows: list[list[int]]) -> None:
    window_of = np.repeat(np.arange(len(windows)), [len(window) for window in windows])
    for number, left in enumerate(pack(windows, 700)):
        assert all(number - window_of[draw] < MAX_WINDOWS_OPEN for draw in left.draws)


def test_a_sample_of_exactly_a_row_has_it_alone_and_a_longer_one_is_an_error() -> None:
    left = pack([[700, 1, 699]], 700)[0]
    assert len(set(left.rows[[0, 1]].tolist())) == 2
    assert left.rows[1] == left.rows[2] != left.rows[0]
    with pytest.raises(DataError, match="701 tokens fits no row of 700"):
        pack([[701]], 700)


@pytest.mark.parametrize("mean", [0.1, 0.3])
def test_log_normal_lengths_fill_their_rows(mean: float) -> None:
    random = np.random.default_rng(0)
    lengths = random.lognormal(np.log(mean * ROW) - 0.32, 0.8, 60_000).clip(1, ROW).astype(np.int32)
    assert fill(lengths, 8192) >= 0.995


def test_even_lengths_come_close_to_packing_all_at_once() -> None:
    lengths = np.random.default_rng(0).integers(int(0.2 * ROW), int(0.9 * ROW), 60_000).astype(np.int32)
    assert fill(lengths, 8192) >= fill(lengths, len(lengths)) - 0.005
