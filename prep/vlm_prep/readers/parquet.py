"""Parquet: files with a column of messages, and media inside or beside them; parts are runs of row groups.

Memory is bounded by a few batches and the largest page of the file, which Parquet decompresses in one piece.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError
from vlm_catalogs.source import FileSource
from vlm_prep.content_ids import file_content_id
from vlm_prep.parts import PartInput, PlannedPart, plan_pieces
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers.table_rows import CHUNK_BYTES, CHUNK_ROWS, columns_to_read, read_rows
from vlm_prep.source_format import source_root

MEDIA_ROWS = 32
"""At most so many rows with media are decoded at once."""


def plan_parts(source: FileSource, files: Sequence[Path]) -> list[PlannedPart]:
    """The parts of Parquet files. Raises ConfigError, DataError or StorageError."""
    return plan_pieces([piece for path in files for piece in _row_groups(source, path)])


def read_part(source: FileSource, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of runs of row groups. Raises DataError for a damaged file."""
    for part_input in inputs:
        yield from read_rows(_batches(source, part_input), source, part_input, limits)


def _row_groups(source: FileSource, path: Path) -> Iterator[PartInput]:
    _, content_id = file_content_id(path)
    file = _open(path)
    columns_to_read(file.schema_arrow, source, path)
    first_row = 0
    for group in (file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)):
        if group.num_rows:
            yield PartInput(
                name=path.relative_to(source_root(source)).as_posix(),
                path=str(path),
                bytes=sum(group.column(index).total_compressed_size for index in range(group.num_columns)),
                content_id=content_id,
                first_row=first_row,
                num_rows=group.num_rows,
            )
        first_row += group.num_rows


def _batches(source: FileSource, part_input: PartInput) -> Iterator[pa.RecordBatch]:
    path = Path(part_input.path)
    file = _open(path)
    columns = columns_to_read(file.schema_arrow, source, path)
    first_row = 0
    for index in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(index)
        if part_input.first_row <= first_row < part_input.first_row + part_input.num_rows and group.num_rows:
            rows = _batch_rows(file.schema_arrow, group)
            try:
                yield from file.iter_batches(rows, row_groups=[index], columns=columns, use_threads=False)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DataError(f"{path}: row group {index}: damaged Parquet: {_first_line(error)}") from error
        first_row += group.num_rows


def _batch_rows(schema: pa.Schema, group: pq.RowGroupMetaData) -> int:
    """Rows of one batch. The stored sizes tell too little where a dictionary stands for equal media."""
    most = MEDIA_ROWS if any("binary" in str(kind) for kind in schema.types) else CHUNK_ROWS
    return max(1, min(most, CHUNK_BYTES * int(group.num_rows) // max(1, int(group.total_byte_size))))


def _open(path: Path) -> pq.ParquetFile:
    """The file, mapped: pages are read when they are used."""
    try:
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are no UTF-8
        raise DataError(f"{path}: not a Parquet file, or a damaged one: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0][:300]
