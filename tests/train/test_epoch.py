import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import order_key, sample_key
from vlm_catalogs.tables import EPOCH, LENGTHS, SELECTION
from vlm_train.epoch import DatasetToDraw, OrderSettings, dataset_order, plan_epoch, steps_per_epoch

GOLDEN = Path(__file__).parent.parent / "golden" / "epoch_first_50.json"


def dataset(name: str, size: int, draws: int, *, shards: int = 3, alternatives: int = 1) -> DatasetToDraw:
    ids = [f"{name}#{number:09d}" for number in range(size)]
    rows = [
        {
            "dataset": name,
            "sample_id": sample_id,
            "sample_key": sample_key(name, sample_id),
            "selected": True,
            "split": "train",
            "num_alternatives": alternatives,
            "part": f"part-{number * shards // size // 2}",
            "shard": number * shards // size % 2,
            "index_in_shard": number,
        }
        for number, sample_id in enumerate(ids)
    ]
    lengths = [
        {
            "sample_key": row["sample_key"],
            "alternative": alternative,
            "total_tokens": 10 + alternative,
            "supervised_tokens": 3 + alternative,
            "vision_patches": 4,
        }
        for row in reversed(rows)
        for alternative in reversed(range(alternatives))
    ]
    return DatasetToDraw(
        name=name,
        num_draws=draws,
        samples=pa.Table.from_pylist(rows, schema=SELECTION),
        lengths=pa.Table.from_pylist(lengths, schema=LENGTHS),
    )


def order(**changes: object) -> OrderSettings:
    return OrderSettings(**{"seed": 7, "rows_per_step": 4, **changes})  # type: ignore[arg-type]


def planned(table: pa.Table) -> list[dict[str, object]]:
    return [row for row in table.to_pylist() if row["status"] == "planned"]


def test_the_first_50_rows_are_the_golden_ones() -> None:
    mix = [dataset("a", 40, 60, shards=20, alternatives=3), dataset("b", 30, 25), dataset("c", 3, 5)]
    rows = [
        [row[key] for key in ("step", "row", "dataset", "sample_id", "alternative", "tokens", "status")]
        for row in plan_epoch(mix, epoch=1, order=order()).to_pylist()[:50]
    ]
    assert rows == json.loads(GOLDEN.read_text())


@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 70)), min_size=1, max_size=5),
    epoch=st.integers(0, 4),
    seed=st.integers(0, 2**31),
    rows_per_step=st.integers(1, 9),
)
@settings(max_examples=25, deadline=None)
def test_every_dataset_gets_exactly_its_draws(
    sizes: list[tuple[int, int]], epoch: int, seed: int, rows_per_step: int
) -> None:
    mix = [dataset(f"d{number}", size, draws) for number, (size, draws) in enumerate(sizes)]
    settings_ = order(seed=seed, rows_per_step=rows_per_step)
    if not any(draws for _, draws in sizes):
        with pytest.raises(DataError, match="draws no sample"):
            plan_epoch(mix, epoch=epoch, order=settings_)
        return
    table = plan_epoch(mix, epoch=epoch, order=settings_)
    assert table.schema == EPOCH
    counts = Counter(row["dataset"] for row in planned(table))
    assert counts == {one.name: one.num_draws for one in mix if one.num_draws}
    assert table.num_rows == steps_per_epoch(sum(counts.values()), order=settings_) * rows_per_step
    assert table.equals(plan_epoch(mix, epoch=epoch, order=settings_))


@given(size=st.integers(1, 25), draws=st.integers(1, 60), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_no_sample_comes_k_plus_2_times_before_all_others_came_k_times(size: int, draws: int, seed: int) -> None:
    one = dataset("a", size, draws)
    seen = np.zeros(size, np.int64)
    for epoch in range(4):
        for row in dataset_order(one, epoch=epoch, order=order(seed=seed)):
            seen[row] += 1
            assert seen.max() - seen.min() <= 1
    assert seen.sum() == 4 * draws


def test_epochs_continue_one_sequence_without_a_gap() -> None:
    whole = dataset_order(dataset("a", 10, 28), epoch=0, order=order())
    halves = [dataset_order(dataset("a", 10, 14), epoch=epoch, order=order()) for epoch in range(2)]
    assert np.concatenate(halves).tolist() == whole.tolist()


def test_passes_and_seeds_give_other_orders() -> None:
    one = dataset("a", 30, 30)
    orders = {
        tuple(dataset_order(one, epoch=epoch, order=order(seed=seed)).tolist()) for epoch in range(3) for seed in (1, 2)
    }
    assert len(orders) == 6


def test_a_window_of_an_epoch_holds_the_mix() -> None:
    mix = [dataset(f"d{number}", 5, 1 + number % 17) for number in range(100)]
    total = sum(one.num_draws for one in mix)
    names = [row["dataset"] for row in planned(plan_epoch(mix, epoch=0, order=order()))]
    for window in (50, 200, 400):
        for begin in range(0, total - window, 37):
            counts = Counter(names[begin : begin + window])
            assert max(abs(counts[one.name] - window * one.num_draws / total) for one in mix) < 5


def test_samples_stay_within_their_block_of_shards() -> None:
    one = dataset("a", 400, 400, shards=40)
    shards = [(row["part"], row["shard"]) for row in one.samples.select(["part", "shard"]).to_pylist()]
    visited = [shards[row] for row in dataset_order(one, epoch=0, order=order())]
    blocks = [set(visited[begin : begin + 80]) for begin in range(0, 400, 80)]
    assert [len(block) for block in blocks] == [8] * 5
    assert len(set().union(*blocks)) == 40
    assert visited[:10] != sorted(visited[:10])


def test_without_shuffle_a_dataset_keeps_its_source_order() -> None:
    mix = [dataset("a", 6, 12), dataset("b", 6, 6)]
    rows = planned(plan_epoch(mix, epoch=0, order=order(shuffle=False)))
    assert [row["sample_id"] for row in rows if row["dataset"] == "b"] == mix[1].samples.column("sample_id").to_pylist()
    assert [row["dataset"] for row in rows[:6]] == ["a", "b", "a"] * 2


def test_a_short_last_step_is_filled_with_empty_rows_or_dropped() -> None:
    mix = [dataset("a", 10, 10)]
    filled = plan_epoch(mix, epoch=0, order=order()).to_pylist()
    assert [row["status"] for row in filled] == ["planned"] * 10 + ["empty"] * 2
    assert [(row["step"], row["row"]) for row in filled[-2:]] == [(2, 2), (2, 3)]
    assert [(row["tokens"], row["supervised_tokens"], row["dataset"]) for row in filled[-2:]] == [(0, 0, "")] * 2
    dropped = plan_epoch(mix, epoch=0, order=order(drop_last=True))
    assert dropped.to_pylist() == filled[:8]


def test_the_alternative_follows_seed_epoch_and_sample_and_brings_its_own_length() -> None:
    one = dataset("a", 20, 20, alternatives=3)
    for epoch in range(2):
        for row in planned(plan_epoch([one], epoch=epoch, order=order())):
            assert row["alternative"] == order_key(7, epoch, row["sample_key"]) % 3
            assert (row["tokens"], row["supervised_tokens"]) == (10 + row["alternative"], 3 + row["alternative"])


def test_a_sample_without_a_measured_length_is_an_error() -> None:
    one = dataset("a", 4, 4)
    broken = DatasetToDraw(name="a", num_draws=4, samples=one.samples, lengths=one.lengths.slice(1))
    with pytest.raises(DataError, match="a: a selected sample has no measured length"):
        plan_epoch([broken], epoch=0, order=order())
    with pytest.raises(DataError, match="4 draws are planned, but no sample is selected"):
        plan_epoch(
            [DatasetToDraw(name="a", num_draws=4, samples=one.samples.slice(4), lengths=one.lengths)],
            epoch=0,
            order=order(),
        )
