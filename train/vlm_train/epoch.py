"""The epoch as a table: which samples stand in which row of which step, purely from the mix, the seed and the epoch.

Every draw of a dataset has a time (see draws.py); all draws are merged by time, so that every stretch of an epoch holds
the mix. The merged draws are cut into windows. With packing a window's samples fill rows (see pack.py), and the rows
that leave with a window leave in seeded order; without it, each sample is a row, and the rows of a step go by length.
The table comes in parts, so that an epoch of millions of samples can start before it is planned to its end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vlm_catalogs.errors import DataError
from vlm_catalogs.tables import EPOCH
from vlm_train.draws import DatasetToDraw, Draws, Indices, OrderSettings, draw_epoch, mixed_keys
from vlm_train.pack import Packer

PLANNER_VERSION = 2
"""Raised when the same mix, seed and epoch give another table; a golden test holds it and resume refuses a change."""

DRAWS_PER_WINDOW = 8_192
"""About as many samples are packed together."""
SAMPLES_PER_PART = 65_536
"""A part ends with the first whole step after so many samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPart:
    """Whole steps of one epoch, in order, as tables.EPOCH."""

    table: pa.Table
    num_steps: int | None
    """Steps of the whole epoch: known with its last part, None before."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """Samples in rows: parallel arrays, ordered by row."""

    draws: Indices
    rows: Indices
    """Number of the row in the epoch, ascending and without gaps."""

    def between(self, begin: int, end: int) -> "_Lines":
        """The lines of rows [begin, end)."""
        first, last = np.searchsorted(self.rows, [begin, end])
        return _Lines(self.draws[first:last], self.rows[first:last])


def plan_epoch(datasets: Sequence[DatasetToDraw], *, epoch: int, order: OrderSettings) -> pa.Table:
    """The whole table (tables.EPOCH) of one epoch, ordered by (step, row, position). Raises as ``plan_parts``."""
    return pa.concat_tables([part.table for part in plan_parts(datasets, epoch=epoch, order=order)])


def plan_parts(datasets: Sequence[DatasetToDraw], *, epoch: int, order: OrderSettings) -> Iterator[EpochPart]:
    """The table of one epoch, part by part; one part at least, the last of which may be empty.

    Raises DataError when no dataset has draws, one has draws but no sample, or a drawn sample has no length.
    """
    merged = _Merged(datasets, epoch=epoch, order=order)
    size, first_step, lines = order.rows_per_step, 0, _Lines(np.empty(0, np.int64), np.empty(0, np.int64))
    for window, is_last in _rows_of_windows(merged, epoch=epoch, order=order):
        lines = _Lines(np.concatenate([lines.draws, window.draws]), np.concatenate([lines.rows, window.rows]))
        num_rows = int(lines.rows[-1]) + 1 if len(lines.rows) else first_step * size
        if is_last:
            num_steps = num_rows // size if order.drop_last else -(-num_rows // size)
            yield EpochPart(table=merged.table(lines, range(first_step, num_steps)), num_steps=num_steps)
        elif len(lines.draws) >= SAMPLES_PER_PART:
            end = num_rows // size
            yield EpochPart(table=merged.table(lines, range(first_step, end)), num_steps=None)
            lines, first_step = lines.between(end * size, num_rows), end


def steps_per_epoch(num_rows: int, *, order: OrderSettings) -> int:
    """How many steps an epoch of ``num_rows`` rows has."""
    whole, rest = divmod(num_rows, order.rows_per_step)
    return whole if order.drop_last or rest == 0 else whole + 1


def count_steps(datasets: Sequence[DatasetToDraw], *, epoch: int, order: OrderSettings) -> int:
    """How many steps ``plan_parts`` gives, in about half its time. Raises as ``plan_parts``."""
    merged = _Merged(datasets, epoch=epoch, order=order)
    num_rows = 0
    for window, _ in _rows_of_windows(merged, epoch=epoch, order=order):
        num_rows = int(window.rows[-1]) + 1 if len(window.rows) else num_rows
    return steps_per_epoch(num_rows, order=order)


def least_steps(datasets: Sequence[DatasetToDraw], *, order: OrderSettings) -> int:
    """Steps that epoch 0 has at the least, from totals alone; exact without packing and tokens."""
    return steps_per_epoch(sum(_least_rows(dataset, order=order) for dataset in datasets), order=order)


def has_equal_epochs(datasets: Sequence[DatasetToDraw], *, order: OrderSettings) -> bool:
    """Has every epoch as many steps, known without planning?"""
    return order.pack_tokens is None and all(dataset.draw_tokens is None for dataset in datasets)


def _least_rows(dataset: DatasetToDraw, *, order: OrderSettings) -> int:
    if dataset.draw_tokens is not None:
        return 0
    if order.pack_tokens is None:
        return dataset.num_draws
    tokens = np.sort(dataset.samples.column("total_tokens").to_numpy()).astype(np.int64)
    if not len(tokens) or np.any(dataset.samples.column("num_alternatives").to_numpy() > 1):
        return 0
    # Epoch 0 begins with a permutation, so it holds whole ones and then at least as many tokens as the shortest have.
    passes, rest = divmod(dataset.num_draws, len(tokens))
    return int(passes * tokens.sum() + tokens[:rest].sum()) // order.pack_tokens


def _rows_of_windows(merged: "_Merged", *, epoch: int, order: OrderSettings) -> Iterator[tuple[_Lines, bool]]:
    """The rows that leave with each window, and whether it is the last; rows are counted in the order they leave."""
    packer = None if order.pack_tokens is None else Packer(order.pack_tokens)
    num_rows = 0
    for number in range(merged.num_windows):
        is_last = number == merged.num_windows - 1
        draws = merged.window(number)
        if packer is None:
            rows = np.arange(len(draws))
        else:
            left = packer.add(draws, merged.tokens[draws], is_last=is_last)
            keys = mixed_keys(left.rows.astype(np.uint64), order.seed, epoch, "rows") if order.shuffle else left.rows
            by_row = np.lexsort((left.rows, keys))  # stable: within a row as they were drawn
            draws = left.draws[by_row]
            rows = np.cumsum(np.diff(left.rows[by_row], prepend=-1) != 0) - 1
        yield _Lines(draws, rows + num_rows), is_last
        num_rows += int(rows[-1]) + 1 if len(rows) else 0


class _Merged:
    """The draws of all datasets, numbered dataset by dataset, and cut into windows of time."""

    def __init__(self, datasets: Sequence[DatasetToDraw], *, epoch: int, order: OrderSettings) -> None:
        self._datasets = [dataset for dataset in datasets if dataset.num_draws > 0 or dataset.draw_tokens]
        if not self._datasets:
            raise DataError("the mix draws no sample; look at the audit of vlm-prep build-mix")
        self._epoch = epoch
        self._order = order
        self._draws = [draw_epoch(dataset, epoch=epoch, order=order) for dataset in self._datasets]
        self._begins = np.concatenate([[0], np.cumsum([len(draws.samples) for draws in self._draws])])
        self.tokens = np.concatenate([draws.tokens for draws in self._draws])
        self.num_windows = max(1, -(-len(self.tokens) // DRAWS_PER_WINDOW))
        cuts = np.arange(self.num_windows + 1) / self.num_windows
        cuts[-1] = np.inf
        self._cuts = [np.searchsorted(draws.times, cuts) for draws in self._draws]

    def window(self, number: int) -> Indices:
        """The draws of one window, merged by time; equal times go by the order of the datasets."""
        ranges = [(int(cuts[number]), int(cuts[number + 1])) for cuts in self._cuts]
        numbers = [np.arange(first, last) + begin for (first, last), begin in zip(ranges, self._begins, strict=False)]
        times = [draws.times[first:last] for draws, (first, last) in zip(self._draws, ranges, strict=True)]
        return np.concatenate(numbers)[np.argsort(np.concatenate(times), kind="stable")]

    def table(self, lines: _Lines, steps: range) -> pa.Table:
        """Whole steps as tables.EPOCH; rows that are missing from the last are empty."""
        size = self._order.rows_per_step
        lines = self._grouped(lines.between(steps.start * size, steps.stop * size))
        num_rows = int(lines.rows[-1]) + 1 if len(lines.rows) else steps.start * size
        empty = np.arange(num_rows, steps.stop * size)
        rows = np.concatenate([lines.rows, empty])
        starts = np.searchsorted(rows, rows)
        filled = pa.concat_tables([self._samples(lines.draws), _empty_rows(len(empty))])
        columns = {
            "epoch": pa.array(np.full(len(rows), self._epoch, np.int32)),
            "step": pa.array((rows // size).astype(np.int32)),
            "row": pa.array((rows % size).astype(np.int32)),
            "position": pa.array((np.arange(len(rows)) - starts).astype(np.int32)),
            "status": pa.array(np.repeat(["planned", "empty"], [len(lines.rows), len(empty)]).tolist(), pa.string()),
            **{name: filled.column(name) for name in filled.column_names},
        }
        return pa.table({name: columns[name] for name in EPOCH.names}).cast(EPOCH).combine_chunks()

    def _grouped(self, lines: _Lines) -> _Lines:
        """Rows of one sample ordered by length within their step: micro-batches need less padding, steps stay."""
        if self._order.pack_tokens is not None or not self._order.shuffle:
            return lines
        steps = lines.rows // self._order.rows_per_step
        return _Lines(lines.draws[np.lexsort((self.tokens[lines.draws], steps))], lines.rows)

    def _samples(self, draws: Indices) -> pa.Table:
        """Name, place and lengths of the samples of ``draws``, in that order."""
        owners = np.searchsorted(self._begins, draws, side="right") - 1
        by_owner = np.argsort(owners, kind="stable")
        present, firsts = np.unique(owners[by_owner], return_index=True)
        groups = np.split(draws[by_owner], firsts[1:]) if len(present) else []
        tables = [
            _describe(self._datasets[owner], self._draws[owner], group - self._begins[owner])
            for owner, group in zip(present.tolist(), groups, strict=True)
        ]
        where = np.empty(len(draws), np.int64)
        where[by_owner] = np.arange(len(draws))
        return pa.concat_tables([*tables, _empty_rows(0)]).take(pa.array(where))


PLACE = ("sample_id", "sample_key", "part", "shard", "index_in_shard")
NAMED = pa.schema([field for field in EPOCH if field.name not in ("epoch", "step", "row", "position", "status")])


def _describe(dataset: DatasetToDraw, draws: Draws, numbers: Indices) -> pa.Table:
    samples = dataset.samples.select(PLACE).take(pa.array(draws.samples[numbers]))
    rows = pa.array(draws.lengths[numbers])
    lengths = dataset.lengths.select(["supervised_tokens", "vision_patches"]).take(rows)
    columns = {
        "dataset": pa.array([dataset.name] * len(numbers), pa.string()),
        **{name: samples.column(name) for name in PLACE},
        "alternative": pa.array(draws.alternatives[numbers]),
        "tokens": pa.array(draws.tokens[numbers]),
        "supervised_tokens": lengths.column("supervised_tokens"),
        "vision_patches": lengths.column("vision_patches"),
    }
    return pa.table({name: columns[name] for name in NAMED.names}).cast(NAMED)


def _empty_rows(count: int) -> pa.Table:
    """Rows that stand for no sample: no name, no length."""
    return pa.table(
        {field.name: pa.array(["" if field.type == pa.string() else 0] * count, field.type) for field in NAMED},
        schema=NAMED,
    )
