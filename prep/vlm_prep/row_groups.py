"""Rows on their way into a Parquet file, so many at a time that memory stays bounded: the same rows, the same bytes."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_prep.staging import writing

ROW_GROUP_ROWS = 1 << 16
ROW_GROUP_BYTES = 64 << 20
"""A row group ends with the row that reaches either: the same rows give the same bytes (semantics A5)."""

ROWS_AT_ONCE = 1024
"""Rows become columns as soon as there are so many, while the processor's cache still holds them."""

Row = tuple[str | int | float | bool | None, ...]
"""One row, without the fields that are the same for the whole table: a plain tuple, because a dict for each row costs
more than reading the sample's headers does."""


class RowGroups:
    """Collects rows and turns them into Arrow tables of one row group each."""

    def __init__(self, schema: pa.Schema, *, same: Mapping[str, str]) -> None:
        """``same``: the fields that hold one text in every row; rows have the others, in the order of the schema."""
        self._schema = schema
        self._same = same
        self._names = [name for name in schema.names if name not in same]
        self._rows: list[Row] = []
        self._blocks: list[pa.Table] = []
        self._num_rows = 0
        self.num_bytes = 0
        """Of the long texts among the rows that are in no group yet, counted by who adds them."""

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows; then ask ``is_full``."""
        self._rows += rows
        self._num_rows += len(rows)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._make_block()

    def add_columns(
        self, num_rows: int, columns: Mapping[str, Any], *, sizes: Sequence[int] = ()
    ) -> Iterator[pa.Table]:
        """Add rows by columns: an array, a list, or one value that all rows have; None in columns that are not given.

        Gives the groups that are full. ``sizes``: of each row, what it adds to ``num_bytes``.
        """
        if self._rows:
            self._make_block()
        arrays = [self._column(field, num_rows, columns.get(field.name)) for field in self._schema]
        block = pa.Table.from_arrays(arrays, schema=self._schema)
        for begin, end in self._cuts(num_rows, sizes):
            self._blocks.append(block.slice(begin, end - begin))
            self._num_rows += end - begin
            self.num_bytes += sum(sizes[begin:end])
            yield from self.take_full()

    def _column(self, field: pa.Field, num_rows: int, value: Any) -> pa.Array:
        if isinstance(value, pa.Array):
            return value
        if isinstance(value, (list, tuple)):
            return pa.array(value, field.type)
        return pa.repeat(pa.scalar(self._same.get(field.name, value), field.type), num_rows)

    def _cuts(self, num_rows: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Ranges of so many rows, cut behind each row that ends a group; each is added before the next is asked for."""
        begin = 0
        while begin < num_rows:
            end = min(num_rows, begin + ROW_GROUP_ROWS - self._num_rows)
            room = ROW_GROUP_BYTES - self.num_bytes
            if sum(sizes[begin:end]) >= room:
                end = begin + bisect_left(list(accumulate(sizes[begin:end])), room) + 1
            yield begin, end
            begin = end

    @property
    def is_full(self) -> bool:
        """Are these rows enough for a row group?"""
        return self._num_rows >= ROW_GROUP_ROWS or self.num_bytes >= ROW_GROUP_BYTES

    def take(self) -> pa.Table:
        """The next group, whose rows are forgotten here."""
        self._make_block()
        rows = pa.concat_tables(self._blocks)
        self._blocks = [rows.slice(ROW_GROUP_ROWS)]
        self._num_rows = self._blocks[0].num_rows
        self.num_bytes = 0
        return rows.slice(0, ROW_GROUP_ROWS).combine_chunks()

    def _make_block(self) -> None:
        """Turn rows into columns."""
        rows, self._rows = self._rows, []
        columns: Mapping[str, Sequence[Any]] = dict(zip(self._names, zip(*rows, strict=True), strict=False))
        arrays = [
            pa.repeat(self._same[field.name], len(rows))
            if field.name in self._same
            else pa.array(columns.get(field.name, ()), field.type)
            for field in self._schema
        ]
        self._blocks.append(pa.Table.from_arrays(arrays, schema=self._schema))

    def take_full(self) -> Iterator[pa.Table]:
        """The groups that are full."""
        while self.is_full:
            yield self.take()

    def take_rest(self) -> Iterator[pa.Table]:
        """The last groups, or one without rows."""
        yield from self.take_full()
        yield self.take()


class TableFile:
    """A Parquet file that grows by row groups. A table without rows has one group, as ``write_table`` gives it one."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        with writing(path):
            self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._is_empty = True

    def write(self, groups: Iterable[pa.Table]) -> None:
        """Add row groups. Raises StorageError."""
        for group in groups:
            if group.num_rows or self._is_empty:
                with writing(self._path):
                    self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            self._is_empty = False

    def close(self) -> None:
        """End the file. Raises StorageError."""
        with writing(self._path):
            self._writer.close()

    def abandon(self) -> None:
        """Let go of a file that will not be whole, whatever the disk says; nothing happens to one that is closed."""
        with suppress(OSError):
            self._writer.close()
        self._writer.is_open = False  # else its finaliser tries once more, and prints what the disk says


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table with fixed row groups: the same rows give the same bytes."""
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")
