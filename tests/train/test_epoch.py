import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import sample_key
from vlm_catalogs.tables import EPOCH, LENGTHS, SELECTION
from vlm_train.draws import DatasetToDraw, OrderSettings, dataset_order, mixed_keys
from vlm_train.epoch import count_steps, least_steps, plan_epoch, plan_parts, steps_per_epoch

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
            "total_tokens": 9 + alternatives,
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
            key = mixed_keys(np.array([row["sample_key"]], np.uint64), 7, epoch)[0]
            assert row["alternative"] == int(key) % 3
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


def packed_order(**changes: object) -> OrderSettings:
    return order(**{"pack_tokens": 32, **changes})


@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 70)), min_size=1, max_size=5),
    epoch=st.integers(0, 4),
    seed=st.integers(0, 2**31),
    rows_per_step=st.integers(1, 9),
    samples_per_part=st.integers(1, 60),
    draws_per_window=st.integers(1, 60),
)
@settings(max_examples=100, deadline=None)
def test_packed_epochs_hold_exactly_the_draws_in_rows_that_are_not_too_long(
    sizes: list[tuple[int, int]],
    epoch: int,
    seed: int,
    rows_per_step: int,
    samples_per_part: int,
    draws_per_window: int,
) -> None:
    mix = [
        dataset(f"d{number}", size, draws, alternatives=1 + number % 2) for number, (size, draws) in enumerate(sizes)
    ]
    mix.append(dataset("one", 1, 1))
    settings_ = packed_order(seed=seed, rows_per_step=rows_per_step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_train.epoch.SAMPLES_PER_PART", samples_per_part)
        patch.setattr("vlm_train.epoch.DRAWS_PER_WINDOW", draws_per_window)
        parts = list(plan_parts(mix, epoch=epoch, order=settings_))
        assert count_steps(mix, epoch=epoch, order=settings_) == parts[-1].num_steps
    assert least_steps(mix, order=settings_) <= count_steps(mix, epoch=0, order=settings_)
    assert [part.num_steps is None for part in parts] == [True] * (len(parts) - 1) + [False]
    lines = pa.concat_tables([part.table for part in parts]).to_pylist()
    assert Counter(row["dataset"] for row in lines if row["status"] == "planned") == {
        one.name: one.num_draws for one in mix if one.num_draws
    }
    drawn = Counter((row["dataset"], row["sample_key"]) for row in lines if row["status"] == "planned")
    for one in mix:
        expected = Counter(
            one.samples.column("sample_key").to_numpy()[dataset_order(one, epoch=epoch, order=settings_)].tolist()
            if one.num_draws
            else []
        )
        assert {key: number for (name, key), number in drawn.items() if name == one.name} == expected
    places = [(row["step"], row["row"], row["position"]) for row in lines]
    assert places == sorted(set(places))
    by_row: dict[tuple[int, int], list[dict[str, object]]] = {}
    for row in lines:
        by_row.setdefault((row["step"], row["row"]), []).append(row)
    assert list(by_row) == [(step, row) for step in range(parts[-1].num_steps or 0) for row in range(rows_per_step)]
    for row in by_row.values():
        assert sum(int(str(one["tokens"])) for one in row) <= 32
        assert [one["position"] for one in row] == list(range(len(row)))
        assert len(row) == 1 or all(one["status"] == "planned" for one in row)


def test_parts_and_the_whole_are_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = [dataset("a", 40, 90, alternatives=3), dataset("b", 30, 25)]
    monkeypatch.setattr("vlm_train.epoch.DRAWS_PER_WINDOW", 20)
    whole = [plan_epoch(mix, epoch=1, order=one) for one in (order(), packed_order())]
    monkeypatch.setattr("vlm_train.epoch.SAMPLES_PER_PART", 10)
    for expected, one in zip(whole, (order(), packed_order()), strict=True):
        parts = list(plan_parts(mix, epoch=1, order=one))
        assert len(parts) > 2
        assert pa.concat_tables([part.table for part in parts]).equals(expected)


def test_rows_of_a_step_go_by_length_without_packing_and_the_step_stays() -> None:
    mix = [dataset("a", 60, 60, alternatives=3)]
    tokens = [row["tokens"] for row in planned(plan_epoch(mix, epoch=0, order=order(rows_per_step=12)))]
    for begin in range(0, 60, 12):
        assert tokens[begin : begin + 12] == sorted(tokens[begin : begin + 12])
    assert tokens != sorted(tokens)


def test_weights_a_million_to_one_give_each_dataset_its_draws() -> None:
    mix = [dataset("rare", 1, 1), dataset("often", 500, 20_000)]
    names = Counter(row["dataset"] for row in planned(plan_epoch(mix, epoch=3, order=packed_order(rows_per_step=7))))
    assert names == {"rare": 1, "often": 20_000}


def test_by_tokens_each_epoch_is_within_one_sample_of_its_target_and_nothing_is_skipped() -> None:
    one = dataset("a", 37, 10)
    lengths = np.random.default_rng(0).integers(5, 90, 37)
    samples = one.samples.set_column(10, "total_tokens", pa.array(lengths, pa.int32()))
    one = replace(one, samples=samples, draw_tokens=701)
    orders = [dataset_order(one, epoch=epoch, order=order()) for epoch in range(12)]
    running = 0
    for epoch, rows in enumerate(orders):
        running += int(lengths[rows].sum())
        assert abs(running - 701 * (epoch + 1)) <= lengths.max() / 2
        assert abs(int(lengths[rows].sum()) - 701) <= lengths.max()
    every = np.concatenate(orders)
    for begin in range(0, len(every) - 37, 37):
        assert sorted(every[begin : begin + 37].tolist()) == list(range(37))
