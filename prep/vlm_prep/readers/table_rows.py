"""One row of a table read into a sample, whatever the table's format."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.source import FileSource
from vlm_prep.columns import STRUCTURE_KEYS, renamed
from vlm_prep.conversation import CONVERSATION_KEYS, RejectSample, read_record
from vlm_prep.parts import PartInput
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.readers.embedded_media import EmbeddedMedia
from vlm_prep.readers.file_rows import media_folder
from vlm_prep.readers.loose_media import MediaFolder, load_media
from vlm_prep.reasons import BAD_CONVERSATION, SAMPLE_TOO_LARGE, UNREADABLE_JSON

CHUNK_BYTES = 16 << 20
CHUNK_ROWS = 1024
"""So much of a table is turned into Python values at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableRow:
    """A row whose values Arrow cannot give."""

    detail: str


def columns_to_read(schema: pa.Schema, source: FileSource, path: Path) -> list[str]:
    """The columns that become samples: the conversation, the media, and of the others those that JSON can hold.

    Raises ConfigError when a mapped column is not there, or none holds a conversation.
    """
    where = f"{source.origin}: {source.name}: {path}"
    missing = [column for column in source.columns.values() if column not in schema.names]
    if missing:
        raise ConfigError(f"{where}: no column {missing[0]!r}; it has {', '.join(schema.names)}")
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise ConfigError(f"{where}: two columns are called {twice[0]!r}; rename one of them")
    usual = {name: renamed({name: name}, source.columns) for name in schema.names}
    taken = {column: name for name, column in source.columns.items()}
    structure = [name for name in schema.names if name in taken or (usual[name] and name in STRUCTURE_KEYS)]
    if not any(taken.get(name, name) in CONVERSATION_KEYS for name in structure):
        raise ConfigError(
            f"{where}: no column messages or conversations; it has {', '.join(schema.names)}; "
            'say which with columns = {messages = "..."}'
        )
    return [name for name in schema.names if name in structure or (usual[name] and _is_json(schema.field(name).type))]


def _is_json(kind: pa.DataType) -> bool:
    """Can JSON hold values of that type? Bytes that no media column names, dates and decimals are left out."""
    types = pa.types
    if types.is_dictionary(kind):
        return _is_json(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(is_text or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))


def read_rows(
    batches: Iterable[pa.RecordBatch], source: FileSource, part_input: PartInput, limits: Limits
) -> Iterator[RawSample | RejectedSample]:
    """The samples of the batches that are the rows of ``part_input``, in order; memory stays bounded."""
    folder = media_folder(source, part_input)
    row = part_input.first_row
    for batch in batches:
        for values in _python_rows(batch):
            name = part_input.name
            yield read_row(values, Origin(sample_id=f"{name}#{row:09d}", source_uri=name), source, folder, limits)
            row += 1
            del values  # up to 256 MiB, not to be held while the next row is read
        del batch


def read_row(
    values: Mapping[str, Any] | UnreadableRow, origin: Origin, source: FileSource, folder: MediaFolder, limits: Limits
) -> RawSample | RejectedSample:
    """The sample of one row, its media inside it or in ``folder``."""
    embedded = EmbeddedMedia()
    source_id = None
    try:
        if isinstance(values, UnreadableRow):
            raise RejectSample(UNREADABLE_JSON, values.detail)
        text_bytes, value = _json_value(renamed(dict(values), source.columns), embedded)
        if text_bytes > limits.max_sample_bytes:
            raise RejectSample(SAMPLE_TOO_LARGE, f"{text_bytes:,} bytes of text, max_sample_bytes is the limit")
        record = read_record([value])
        source_id = record.source_id
        loose = [name for name in record.names() if name not in embedded.contents]
        room = limits.max_sample_bytes - text_bytes - sum(map(len, embedded.contents.values()))
        media = {**embedded.contents, **load_media(loose, folder, limits, max_bytes=room)}
    except RejectSample as door:
        return RejectedSample(origin=origin, rejected=door.rejected, source_id=source_id)
    return RawSample(origin=origin, record=record, media=media)


def _json_value(row: dict[str, Any], embedded: EmbeddedMedia) -> tuple[int, dict[str, Any]]:
    """The row as a JSON record, and how long its text is. Raises RejectSample for what JSON cannot hold."""
    record: dict[str, Any] = {}
    for name, value in row.items():
        if name in CONVERSATION_KEYS and isinstance(value, str | bytes):
            record[name] = _parsed(value)
        elif value is not None:
            record[name] = embedded.lifted(value) if name in STRUCTURE_KEYS else _without_nan(value)
    record = {name: value for name, value in record.items() if value is not None}
    try:
        return len(json.dumps(record, allow_nan=False)), record
    except ValueError as error:
        raise RejectSample(UNREADABLE_JSON, f"a number that JSON cannot hold: {error}") from error
    except TypeError as error:
        raise RejectSample(BAD_CONVERSATION, str(error)) from error


def _parsed(text: str | bytes) -> Any:
    try:
        return json_text.loads(text)
    except ValueError as error:
        raise RejectSample(UNREADABLE_JSON, str(error)) from error


def _without_nan(value: Any) -> Any:
    """Null in the place of NaN, which tables use for what is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return {key: _without_nan(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _python_rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | UnreadableRow]:
    """The rows of a batch as Python values, a bounded number of bytes at a time."""
    if batch.num_rows > 1 and (batch.num_rows > CHUNK_ROWS or batch.nbytes > CHUNK_BYTES):
        half = batch.num_rows // 2
        yield from _python_rows(batch.slice(0, half))
        yield from _python_rows(batch.slice(half))
        return
    try:
        batch.validate(full=True)  # damaged offsets would lead out of the buffers
        rows: list[Mapping[str, Any] | UnreadableRow] = batch.to_pylist()
    except (pa.ArrowException, ValueError) as error:
        rows = [UnreadableRow(detail=str(error).splitlines()[0][:300])]
        if batch.num_rows > 1:
            rows = [row for index in range(batch.num_rows) for row in _python_rows(batch.slice(index, 1))]
    yield from rows
