"""What a plan needs of a cache, by hand and against counting it step by step."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest

from vlm_catalogs.object_store import S3Location
from vlm_train.fetch_plan import ShardLines, coalesced, visited_bytes, working_set
from vlm_train.planned_uses import PlannedUses
from vlm_train.shard_cache import Piece


def lines(*steps: list[tuple[int, int]]) -> ShardLines:
    """Steps of (shard, sample)."""
    flat = [(shard, sample, step) for step, reads in enumerate(steps) for shard, sample in reads]
    shards, samples, numbers = np.asarray(flat, np.int64).reshape(-1, 3).T
    return ShardLines((), shards, samples, numbers)


def test_a_shard_counts_from_its_first_step_to_its_last() -> None:
    plan = lines([(0, 0)], [(1, 0)], [(0, 1)], [(2, 0)])
    assert working_set(plan, [10, 100, 1000]) == 1000
    assert working_set(plan, [10, 100, 3]) == 110
    assert working_set(plan, [10, 100, 3], steps_ahead=2) == 113
    assert working_set(lines([(0, 0), (1, 0)]), [5, 7]) == 12


def test_a_shard_may_leave_between_two_passes() -> None:
    once = [[(shard, 0), (shard, 1)] for shard in range(5)]
    assert working_set(lines(*once, *once), [1] * 5) == 1
    assert visited_bytes(lines(*once, *once), [1] * 5) == 10
    repeated = lines(*[[(0, 0)]] * 9, [(1, 0)])
    assert working_set(repeated, [1, 1]) == 1
    assert visited_bytes(repeated, [3, 4]) == 7


def test_an_empty_plan_needs_nothing() -> None:
    assert working_set(lines([]), []) == visited_bytes(lines([]), []) == 0


@pytest.mark.parametrize("seed", range(30))
def test_the_working_set_is_what_counting_step_by_step_gives(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(1, 50) for _ in range(6)]
    reads = [[(draw.randrange(6), sample) for sample in range(3 * step, 3 * step + 3)] for step in range(12)]
    spans = {shard: [step for step, read in enumerate(reads) if shard in dict(read)] for shard in range(6)}
    by_hand = max(
        sum(size for shard, size in enumerate(sizes) if spans[shard] and spans[shard][0] <= step <= spans[shard][-1])
        for step in range(12)
    )
    assert working_set(lines(*reads), sizes) == by_hand


@pytest.mark.parametrize("seed", range(30))
def test_ranges_hold_their_lines_and_no_long_gap(seed: int) -> None:
    draw = random.Random(seed)
    places = sorted((draw.randrange(3), draw.randrange(40)) for _ in range(draw.randint(1, 30)))
    draw.shuffle(places)
    shards, samples = np.asarray(places, np.int64).T
    begins, ends = samples * 10, samples * 10 + 10
    numbers, starts, stops = coalesced(shards, begins, ends, max_gap=20)
    for shard, begin, end, number in zip(shards, begins, ends, numbers, strict=True):
        assert starts[number] <= begin and end <= stops[number]
        assert all(other == shard for other, its in zip(shards, numbers, strict=True) if its == number)
    for number in range(len(starts)):
        inside = sorted((begins[line], ends[line]) for line in range(len(shards)) if numbers[line] == number)
        assert inside[0][0] == starts[number] and max(end for _, end in inside) == stops[number]
        assert all(later[0] - earlier[1] <= 20 for earlier, later in pairwise(inside))
    of_shard = [sorted((starts[n], stops[n]) for n in set(numbers[shards == shard])) for shard in set(shards)]
    for ranges in of_shard:
        assert all(later[0] - earlier[1] > 20 for earlier, later in pairwise(ranges))


def test_the_next_use_of_a_file_is_the_first_from_now_on() -> None:
    at = S3Location(bucket="b", key="k")
    pieces = [Piece(at=at, shard_hash=name, begin=0, end=size) for name, size in (("a", 10), ("b", 100))]
    uses = PlannedUses(pieces, lines([], [], [], [(0, 0)], [(1, 0)], [(0, 1)], [(1, 0)]), steps_ahead=0)
    assert [uses.next_use("a.mds", tick) for tick in (0, 3, 4, 5, 6)] == [3, 3, 5, 5, math.inf]
    assert uses.next_use("unknown", 0) == math.inf
    assert [uses.is_in_use("a.mds", tick) for tick in (2, 3, 4, 5, 6)] == [False, True, True, True, False]
    assert [uses.is_in_use("b.mds", tick) for tick in (3, 4, 5, 6)] == [False, True, False, True]
    assert [(piece.shard_hash, tick) for piece, tick in uses.visits] == [("a", 3), ("b", 4), ("b", 6)]
    assert [uses.most_in_use(*span) for span in [(0, 3), (0, 4), (4, 5), (5, 6), (6, 7), (7, 9)]] == [
        0, 10, 110, 10, 100, 0,
    ]  # fmt: skip
    assert uses.most_bytes == 110
