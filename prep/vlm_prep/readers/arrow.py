"""Arrow IPC files, such as the folders that Hugging Face ``datasets`` saves; parts are runs of record batches."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.source import FileSource
from vlm_prep.content_ids import file_content_id, map_file
from vlm_prep.parts import PartInput, PlannedPart, plan_pieces
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers.table_rows import columns_to_read, read_rows
from vlm_prep.source_format import source_root

FILE_MAGIC = b"ARROW1"
CONTINUATION = b"\xff" * 4
END_OF_STREAM = CONTINUATION + bytes(4)
"""A stream ends with a message of length 0; one that was cut short between two batches does not."""
SPLIT = "train"


def plan_parts(source: FileSource, files: Sequence[Path]) -> list[PlannedPart]:
    """The parts of Arrow files. Raises ConfigError, DataError or StorageError."""
    chosen = _of_the_split(source, files)
    return plan_pieces([piece for path in _in_saved_order(chosen) for piece in _pieces(source, path)])


def read_part(source: FileSource, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of runs of record batches. Raises DataError for a damaged file."""
    for part_input in inputs:
        path = Path(part_input.path)
        batches = (
            batch
            for first_row, batch in _batches(source, path)
            if part_input.first_row <= first_row < part_input.first_row + part_input.num_rows
        )
        yield from read_rows(batches, source, part_input, limits)


def _of_the_split(source: FileSource, files: Sequence[Path]) -> Sequence[Path]:
    """All files, or those of the train split where several splits were saved together."""
    root = Path(source.path)
    if not (root / "dataset_dict.json").is_file():
        return files
    chosen = [path for path in files if path.relative_to(root).parts[0] == SPLIT]
    if not chosen:
        splits = ", ".join(sorted({path.relative_to(root).parts[0] for path in files}))
        where = f"{source.origin}: {source.name}: {root}"
        raise ConfigError(f"{where} has no split {SPLIT!r} but {splits}; name the folder of one")
    return chosen


def _in_saved_order(files: Sequence[Path]) -> Iterator[Path]:
    """The files of each folder as its state.json lists them, else by name. Raises DataError when one is not there."""
    for folder, inside in groupby(files, key=lambda path: path.parent):
        state = folder / "state.json"
        names = _saved_names(state) if state.is_file() else [path.name for path in inside]
        for name in names:
            if not (folder / name).is_file():
                raise DataError(f"{folder / name}: not there, but {state} lists it; copy the folder again")
            yield folder / name


def _saved_names(state: Path) -> list[str]:
    try:
        fields: dict[str, Any] = json_text.loads(state.read_bytes())
        names = [Path(entry["filename"]).name for entry in fields["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state}: not what datasets saves: {error!r}") from error
    if fields.get("_indices_data_files"):
        raise DataError(f"{state}: rows were chosen by an index; call flatten_indices() and save again")
    return names


def _pieces(source: FileSource, path: Path) -> Iterator[PartInput]:
    _, content_id = file_content_id(path)
    for first_row, batch in _batches(source, path):
        yield PartInput(
            name=path.relative_to(source_root(source)).as_posix(),
            path=str(path),
            bytes=batch.nbytes,
            content_id=content_id,
            first_row=first_row,
            num_rows=batch.num_rows,
        )


def _batches(source: FileSource, path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches with rows, each with the number of its first row; their columns stay in the mapped file."""
    content = map_file(path)
    first_row = 0
    try:
        if bytes(content[: len(FILE_MAGIC)]) == FILE_MAGIC:
            file = pa.ipc.open_file(pa.py_buffer(content))
            schema, found = file.schema, (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            is_marked = bytes(content[: len(CONTINUATION)]) == CONTINUATION  # not so before Arrow 0.15
            if is_marked and bytes(content[-len(END_OF_STREAM) :]) != END_OF_STREAM:
                raise DataError(f"{path}: not an Arrow stream, or one that is cut short (no end mark)")
            stream = pa.ipc.open_stream(pa.py_buffer(content))
            schema, found = stream.schema, iter(stream)
        columns = columns_to_read(schema, source, path)
        for batch in found:
            if batch.num_rows:
                batch.validate()
                yield first_row, batch.select(columns)
            first_row += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = str(error).strip().split("\n", maxsplit=1)[0][:300]
        raise DataError(f"{path}: row {first_row:,}: not an Arrow file, or a damaged one: {problem}") from error
