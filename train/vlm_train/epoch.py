"""The epoch as a table: which sample stands in which row of which step, purely from the mix, the seed and the epoch.

Order (semantics C2): a dataset is an endless concatenation of seeded permutations and epoch e takes its draws
[e * n, (e + 1) * n). Draw i of a dataset has the time (i + u) / n, with a seeded u per dataset; all draws are merged by
time, so that every stretch of an epoch holds the mix. A permutation is shard-local: shards are shuffled, then samples
within blocks of shards, so that reading from far away stays sequential.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import order_key, order_keys
from vlm_catalogs.tables import EPOCH

PLANNER_VERSION = 1
"""Raised when the same mix, seed and epoch give another table; a golden test holds it and resume refuses a change."""

SHARDS_PER_BLOCK = 8
"""Samples are shuffled within this many shards (64 MiB each): a bounded cache holds them all."""

Indices = NDArray[np.int64]
Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetToDraw:
    """One dataset of the mix: what may be drawn and how often."""

    name: str
    num_draws: int
    """Draws of one epoch."""
    samples: pa.Table
    """The selected training samples in source order: columns of tables.SELECTION."""
    lengths: pa.Table
    """tables.LENGTHS of at least these samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSettings:
    """What decides the order of an epoch, beside the mix."""

    seed: int
    rows_per_step: int
    shuffle: bool = True
    """False: every dataset in source order; datasets are still merged evenly."""
    drop_last: bool = False
    """True: a short last step is left out; False: it is filled with empty rows."""


def plan_epoch(datasets: Sequence[DatasetToDraw], *, epoch: int, order: OrderSettings) -> pa.Table:
    """The table (tables.EPOCH) of one epoch, one sample a row, ordered by (step, row).

    Raises DataError when a dataset has draws but no sample, or a drawn sample has no length.
    """
    drawn = [dataset for dataset in datasets if dataset.num_draws > 0]
    if not drawn:
        raise DataError("the mix draws no sample; look at the audit of vlm-prep build-mix")
    tables = [_draw_table(dataset, epoch=epoch, order=order) for dataset in drawn]
    times = np.concatenate([_draw_times(dataset, epoch=epoch, order=order) for dataset in drawn])
    numbers = np.repeat(np.arange(len(drawn)), [dataset.num_draws for dataset in drawn])
    merged = pa.concat_tables(tables).take(pa.array(np.lexsort((numbers, times))))
    return _cut_into_steps(merged, epoch=epoch, order=order)


def steps_per_epoch(num_draws: int, *, order: OrderSettings) -> int:
    """How many steps an epoch of ``num_draws`` samples has, one sample a row."""
    whole, rest = divmod(num_draws, order.rows_per_step)
    return whole if order.drop_last or rest == 0 else whole + 1


def dataset_order(dataset: DatasetToDraw, *, epoch: int, order: OrderSettings) -> Indices:
    """The rows of ``dataset.samples`` that the epoch draws, in order (before datasets are merged)."""
    size = dataset.samples.num_rows
    if size == 0:
        raise DataError(f"{dataset.name}: {dataset.num_draws} draws are planned, but no sample is selected")
    begin, end = epoch * dataset.num_draws, (epoch + 1) * dataset.num_draws
    passes = range(begin // size, (end - 1) // size + 1)
    whole = np.concatenate([_permutation(dataset, pass_number=number, order=order) for number in passes])
    return whole[begin - passes.start * size : end - passes.start * size]


def _permutation(dataset: DatasetToDraw, *, pass_number: int, order: OrderSettings) -> Indices:
    if not order.shuffle:
        return np.arange(dataset.samples.num_rows)
    shards, shard_of_sample = _shards(dataset.samples)
    shard_keys = _order_keys(shards, order.seed, pass_number, dataset.name)
    shard_rank = np.empty(len(shards), np.int64)
    shard_rank[np.argsort(shard_keys, kind="stable")] = np.arange(len(shards))
    blocks = shard_rank[shard_of_sample] // SHARDS_PER_BLOCK
    sample_ids = dataset.samples.column("sample_id").to_pylist()
    return np.lexsort((_order_keys(sample_ids, order.seed, pass_number, dataset.name), blocks))


def _shards(samples: pa.Table) -> tuple[list[str], Indices]:
    """The names ``part/shard`` and, for each sample, which of them it stands in."""
    parts = samples.column("part").combine_chunks().dictionary_encode()
    numbers = samples.column("shard").to_numpy().astype(np.int64)
    codes = parts.indices.to_numpy().astype(np.int64) << 32 | numbers
    unique, shard_of_sample = np.unique(codes, return_inverse=True)
    names = parts.dictionary.to_pylist()
    return [f"{names[code >> 32]}/{code & 0xFFFFFFFF}" for code in unique.tolist()], shard_of_sample


def _order_keys(ids: list[str], *prefix: object) -> Keys:
    return np.array(order_keys(prefix, ids), np.uint64)


def _draw_times(dataset: DatasetToDraw, *, epoch: int, order: OrderSettings) -> NDArray[np.float64]:
    offset = order_key(order.seed, epoch, dataset.name) / 2**64 if order.shuffle else 0.5
    return (np.arange(dataset.num_draws) + offset) / dataset.num_draws


def _draw_table(dataset: DatasetToDraw, *, epoch: int, order: OrderSettings) -> pa.Table:
    """The draws of one dataset with the alternative and the lengths of each; still without step and row."""
    drawn = dataset.samples.take(pa.array(dataset_order(dataset, epoch=epoch, order=order)))
    sample_keys = drawn.column("sample_key").to_numpy()
    alternatives = _alternatives(sample_keys, drawn.column("num_alternatives").to_numpy(), seed=order.seed, epoch=epoch)
    lengths = _lengths_of(dataset, sample_keys, alternatives)
    return pa.table(
        {
            "dataset": pa.array([dataset.name] * drawn.num_rows, pa.string()),
            **{name: drawn.column(name) for name in ("sample_id", "sample_key", "part", "shard", "index_in_shard")},
            "alternative": pa.array(alternatives, pa.int32()),
            "tokens": lengths.column("total_tokens"),
            "supervised_tokens": lengths.column("supervised_tokens"),
            "vision_patches": lengths.column("vision_patches"),
        }
    )


def _alternatives(sample_keys: Keys, counts: NDArray[np.int32], *, seed: int, epoch: int) -> NDArray[np.int32]:
    """Which conversation of each sample this epoch shows (semantics A8)."""
    chosen = np.zeros(len(sample_keys), np.int32)
    for row in np.flatnonzero(counts > 1).tolist():
        chosen[row] = order_key(seed, epoch, int(sample_keys[row])) % int(counts[row])
    return chosen


def _lengths_of(dataset: DatasetToDraw, sample_keys: Keys, alternatives: NDArray[np.int32]) -> pa.Table:
    known = dataset.lengths.sort_by([("sample_key", "ascending"), ("alternative", "ascending")])
    known_keys = known.column("sample_key").to_numpy()
    # A sample's alternatives stand side by side from 0, so its first row plus the alternative is the row looked for.
    rows = np.searchsorted(known_keys, sample_keys) + alternatives
    inside = np.minimum(rows, max(len(known_keys) - 1, 0))
    if len(known_keys) == 0 or not (
        np.array_equal(known_keys[inside], sample_keys)
        and np.array_equal(known.column("alternative").to_numpy()[inside], alternatives)
    ):
        raise DataError(f"{dataset.name}: a selected sample has no measured length; run vlm-prep build-mix again")
    return known.take(pa.array(inside))


def _cut_into_steps(merged: pa.Table, *, epoch: int, order: OrderSettings) -> pa.Table:
    num_steps = steps_per_epoch(merged.num_rows, order=order)
    num_rows = num_steps * order.rows_per_step
    planned = merged.slice(0, min(num_rows, merged.num_rows))
    num_empty = num_rows - planned.num_rows
    status = pa.array(["planned"] * planned.num_rows + ["empty"] * num_empty, pa.string())
    filled = pa.concat_tables([planned, _empty_rows(num_empty, planned.schema)])
    places = np.arange(num_rows, dtype=np.int32)
    columns = {
        "epoch": pa.array(np.full(num_rows, epoch, np.int32)),
        "step": pa.array(places // order.rows_per_step),
        "row": pa.array(places % order.rows_per_step),
        "position": pa.array(np.zeros(num_rows, np.int32)),
        "status": status,
    }
    every = {**{name: filled.column(name) for name in filled.column_names}, **columns}
    return pa.table({name: every[name] for name in EPOCH.names}).cast(EPOCH)


def _empty_rows(count: int, schema: pa.Schema) -> pa.Table:
    """Rows that stand for no sample: no name, no length."""
    blank = {"string": "", "default": 0}
    return pa.table(
        {
            field.name: pa.array([blank["string" if field.type == pa.string() else "default"]] * count, field.type)
            for field in schema
        },
        schema=schema,
    )
