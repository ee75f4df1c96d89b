"""What holds for any mix, tried on 250 random ones, each over three epochs, and on epochs of tens of thousands of rows.

The random ones have weights from 1 to 1e-6, datasets of one sample and of no draws, steps of more rows than the epoch
has, samples as long as a row, several conversations a sample, and shares by samples, tokens and repeats.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.train.random_mixes import MAX_LENGTH, RandomMix, dataset, random_mix

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, DataError
from vlm_train.draws import DatasetToDraw, OrderSettings, dataset_order
from vlm_train.epoch import plan_parts
from vlm_train.planned_rows import PlannedRow, planned_rows
from vlm_train.rank_rows import RowSharing, equal_nodes, rows_of_rank
from vlm_train.run_plan import order_settings
from vlm_train.stream import made_in_order, steps_of

NUM_MIXES = 250
EPOCHS = range(3)
WINDOW = 10_000
TOML = """
[policy]
model_name_or_path = "Qwen/Qwen3-VL-2B"
[train.train_policy]
mini_batch = 1
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small windows and parts, so that small mixes have several."""
    monkeypatch.setattr("vlm_train.epoch.SAMPLES_PER_PART", 90)
    monkeypatch.setattr("vlm_train.epoch.DRAWS_PER_WINDOW", 50)


def planned_epoch(mix: RandomMix, epoch: int) -> pa.Table:
    return pa.concat_tables([part.table for part in plan_parts(mix.datasets, epoch=epoch, order=mix.order)])


def draws_nothing(mix: RandomMix) -> bool:
    return not any(one.num_draws or one.draw_tokens for one in mix.datasets)


@pytest.mark.parametrize("begin", range(0, NUM_MIXES, 50))
def test_whatever_the_mix_every_promise_holds(begin: int) -> None:
    for seed in range(begin, begin + 50):
        mix = random_mix(seed)
        if draws_nothing(mix):
            with pytest.raises(DataError, match="draws no sample"):
                planned_epoch(mix, 0)
            continue
        tables = [planned_epoch(mix, epoch) for epoch in EPOCHS]
        try:
            for epoch, table in enumerate(tables):
                nothing_is_lost_or_added(mix, epoch, table)
                rows_are_whole(mix, table)
            shares_are_exact(mix, tables)
            no_sample_runs_ahead(mix)
        except AssertionError as error:
            raise AssertionError(f"random mix {seed}") from error


def nothing_is_lost_or_added(mix: RandomMix, epoch: int, table: pa.Table) -> None:
    """The planned samples are the draws of every dataset, each as often; drop_last may leave some out, at the end."""
    lines = table.filter(pa.array(table["status"].to_numpy() == "planned"))
    found = Counter(zip(lines["dataset"].to_pylist(), lines["sample_id"].to_pylist(), strict=True))
    wanted: Counter[tuple[str, str]] = Counter()
    for one in mix.datasets:
        if one.num_draws or one.draw_tokens:
            ids = one.samples["sample_id"].to_pylist()
            wanted.update((one.name, ids[row]) for row in dataset_order(one, epoch=epoch, order=mix.order).tolist())
    if not mix.order.drop_last:
        assert found == wanted
        return
    assert not found - wanted
    left_out = wanted - found
    longest = max((mix.order.pack_tokens or 1) // 2, 1)
    assert left_out.total() < mix.order.rows_per_step * longest


def rows_are_whole(mix: RandomMix, table: pa.Table) -> None:
    """Steps have all their rows, in order; no row is too long; empty rows stand alone, at the end."""
    places = [(line["step"], line["row"], line["position"]) for line in table.to_pylist()]
    assert places == sorted(set(places))
    by_row: dict[tuple[int, int], list[dict]] = defaultdict(list)
    for line in table.to_pylist():
        by_row[line["step"], line["row"]].append(line)
    size = mix.order.rows_per_step
    assert list(by_row) == [(step, row) for step in range(len(by_row) // size) for row in range(size)]
    is_filled = [rows[0]["status"] == "planned" for rows in by_row.values()]
    assert is_filled == sorted(is_filled, reverse=True) and is_filled.count(False) < size
    for rows in by_row.values():
        assert [one["position"] for one in rows] == list(range(len(rows)))
        assert len({one["status"] for one in rows}) == 1
        assert mix.order.pack_tokens or len(rows) == 1
        assert sum(one["tokens"] for one in rows) <= (mix.order.pack_tokens or MAX_LENGTH)


def shares_are_exact(mix: RandomMix, tables: list[pa.Table]) -> None:
    """By samples within one of exact in every epoch; by tokens within one sample's tokens of the target."""
    total = sum(one.num_draws for one in mix.datasets)
    weights = {name: Fraction(weight) for name, weight in mix.weights.items()}
    for epoch in EPOCHS:
        for one in mix.datasets:
            if one.draw_tokens:
                drawn = dataset_order(one, epoch=epoch, order=mix.order)
                tokens = one.samples["total_tokens"].to_numpy()
                assert abs(int(tokens[drawn].sum()) - one.draw_tokens) <= tokens.max()
            elif mix.unit == "samples":
                exact = weights[one.name] / sum(weights.values()) * mix.epoch_samples
                assert abs(one.num_draws - exact) < 1
                assert total == mix.epoch_samples
            else:
                assert one.num_draws == round(weights[one.name] * one.samples.num_rows)
    if not mix.order.drop_last and mix.unit != "tokens":
        for table in tables:
            assert Counter(table["dataset"].to_pylist()) - Counter({"": table.num_rows}) == Counter(
                {one.name: one.num_draws for one in mix.datasets}
            )


def no_sample_runs_ahead(mix: RandomMix) -> None:
    """No sample comes twice in one permutation; none is seen k + 2 times before all others are seen k times."""
    for one in mix.datasets:
        if not (one.num_draws or one.draw_tokens):
            continue
        drawn = np.concatenate([dataset_order(one, epoch=epoch, order=mix.order) for epoch in EPOCHS])
        size = one.samples.num_rows
        for begin in range(0, len(drawn), size):
            whole = drawn[begin : begin + size]
            assert len(np.unique(whole)) == len(whole)
        seen = np.zeros(size, np.int64)
        for row in drawn.tolist():
            seen[row] += 1
            assert seen[row] - seen.min() <= 1


@pytest.mark.parametrize("begin", range(0, 200, 50))
def test_any_ranks_that_divide_and_any_workers_give_the_same_steps(begin: int, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(TOML)
    for seed in range(begin, begin + 50):
        mix = random_mix(seed)
        if draws_nothing(mix) or mix.order.rows_per_step > 40:
            continue
        size = mix.order.rows_per_step
        table = planned_epoch(mix, 1)
        whole = [sorted(rows) for rows in steps_of(map(names_of, planned_rows(table)), rows_per_step=size)]
        for num_ranks in range(1, size + 1):
            if size % num_ranks:
                config = load_config(tmp_path / "small.toml", overrides=[f"stream.rows_per_step={size}"])
                with pytest.raises(ConfigError, match=f"do not divide by {num_ranks} ranks; .*ranks would do"):
                    order_settings(config, num_ranks=num_ranks)
                continue
            workers = (0, 1, 4)[(seed + num_ranks) % 3]
            ranks = [list(steps_of_rank(table, size, rank, num_ranks, workers)) for rank in range(num_ranks)]
            together = [sorted(chain.from_iterable(rows)) for rows in zip(*ranks, strict=True)]
            assert together == whole, f"random mix {seed}, {num_ranks} ranks, {workers} workers"
            assert {len(rows) for steps in ranks for rows in steps} <= {size // num_ranks}
        alone = [list(steps_of_rank(table, size, 0, 1, workers)) for workers in (0, 1, 4)]
        assert alone[0] == alone[1] == alone[2]


def names_of(row: tuple[PlannedRow, ...]) -> tuple[tuple[int, int, str], ...]:
    return tuple((line.row, line.position, line.name) for line in row)


def steps_of_rank(
    table: pa.Table, size: int, rank: int, num_ranks: int, workers: int
) -> Iterator[list[tuple[tuple[int, int, str], ...]]]:
    sharing = RowSharing(rows_per_step=size, nodes=equal_nodes(num_ranks=num_ranks, num_nodes=1))
    rows = rows_of_rank(planned_rows(table), sharing=sharing, rank=rank)
    return made_in_order(steps_of(rows, rows_per_step=size // num_ranks), names_of, list, num_workers=workers)


LARGE = [
    (unit, pack, num_datasets, seed)
    for seed, (unit, pack, num_datasets) in enumerate(
        [("samples", None, 100), ("samples", 4 * MAX_LENGTH, 20), ("tokens", None, 20), ("tokens", 4 * MAX_LENGTH, 7)]
    )
]


@pytest.mark.parametrize(("unit", "pack", "num_datasets", "seed"), LARGE)
def test_every_window_of_10000_rows_holds_the_shares_within_one_percent(
    unit: str, pack: int | None, num_datasets: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the windows and parts that training has, over epochs of two and a half such windows."""
    monkeypatch.undo()
    mix = large_mix(unit, num_datasets, seed, rows=int(2.5 * WINDOW), per_row=1 if pack is None else 7)
    order = OrderSettings(seed=seed, rows_per_step=64, pack_tokens=pack)
    table = pa.concat_tables([part.table for part in plan_parts(mix, epoch=seed, order=order)])
    table = table.filter(pa.array(table["status"].to_numpy() == "planned"))
    rows = table["step"].to_numpy().astype(np.int64) * 64 + table["row"].to_numpy()
    assert rows.max() >= 2 * WINDOW
    amounts = table["tokens"].to_numpy().astype(np.float64) if unit == "tokens" else np.ones(table.num_rows)
    whole = np.cumsum(np.bincount(rows, weights=amounts))
    totals = np.concatenate([[0], whole])
    in_window = totals[WINDOW:] - totals[:-WINDOW]
    names = table["dataset"].to_numpy()
    for one in mix:
        of_it = np.bincount(rows, weights=amounts * (names == one.name), minlength=len(whole))
        sums = np.concatenate([[0], np.cumsum(of_it)])
        share = sums[-1] / totals[-1]
        off = np.abs(sums[WINDOW:] - sums[:-WINDOW] - share * in_window) / in_window
        assert off.max() <= 0.01, (one.name, off.max())


def large_mix(unit: str, num_datasets: int, seed: int, *, rows: int, per_row: int) -> list[DatasetToDraw]:
    noise = np.random.default_rng(seed)
    weights = 10 ** noise.uniform(-3, 0, num_datasets)
    counts = np.maximum(1, weights / weights.sum() * rows * per_row).astype(int)
    return [
        dataset(
            f"d{number}", max(1, count // 3), draws=count, draw_tokens=count * 34 if unit == "tokens" else None,
            seed=seed, samples_per_shard=100,
        )
        for number, count in enumerate(counts.tolist())
    ]  # fmt: skip
