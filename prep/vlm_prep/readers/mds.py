"""MDS folders: of this project's own columns, or of others with messages and media; parts are runs of whole shards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.sample import MDS_COLUMNS, MediaFacts
from vlm_catalogs.source import FileSource
from vlm_prep.columns import STRUCTURE_KEYS, renamed
from vlm_prep.content_ids import file_content_id
from vlm_prep.conversation import CONVERSATION_KEYS, Record, RejectSample, read_record
from vlm_prep.mds_folder import MdsShard, decoder, is_json, read_index
from vlm_prep.parts import PartInput, PlannedPart, plan_pieces
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.readers.file_rows import media_folder
from vlm_prep.readers.table_rows import UnreadableRow, read_row
from vlm_prep.reasons import UNREADABLE_JSON
from vlm_prep.source_format import source_root

Decoders = Mapping[str, Callable[[memoryview], Any]]


def plan_parts(source: FileSource, files: Sequence[Path]) -> list[PlannedPart]:
    """The parts of an MDS folder; ``files`` are not looked at, index.json lists them. Raises ConfigError, DataError."""
    del files
    return plan_pieces(list(_pieces(source)))


def _pieces(source: FileSource) -> Iterator[PartInput]:
    for shard in read_index(source_root(source)):
        size, content_id = file_content_id(shard.path)
        opened = MdsShard(shard.path)
        _decoders(opened, source, shard.path)
        if opened.num_samples != shard.num_samples:
            message = f"it has {opened.num_samples:,} samples, index.json says {shard.num_samples:,}"
            raise DataError(f"{shard.path}: {message}")
        yield PartInput(
            name=shard.name, path=str(shard.path), bytes=size, content_id=content_id, num_rows=shard.num_samples
        )


def read_part(source: FileSource, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of shards. Raises DataError for a damaged one."""
    for part_input in inputs:
        shard = MdsShard(Path(part_input.path))
        decoders = _decoders(shard, source, Path(part_input.path))
        folder = media_folder(source, part_input)
        for row, payloads in enumerate(shard.samples()):
            origin = Origin(sample_id=f"{part_input.name}#{row:09d}", source_uri=part_input.name)
            values = _decoded(payloads, decoders)
            if _is_own(shard, source):
                yield _own_sample(values, origin)
            else:
                yield read_row(values, origin, source, folder, limits)


def _decoders(shard: MdsShard, source: FileSource, path: Path) -> Decoders:
    """Column -> decoder, of the columns that are read. Raises ConfigError for one that is needed and cannot be."""
    where = f"{source.origin}: {source.name}: {path}"
    usual = {column: name for name, column in source.columns.items()}
    for column in usual.keys() - shard.encodings.keys():
        raise ConfigError(f"{where}: no column {column!r}; it has {', '.join(shard.encodings)}")
    usual = {**{name: name for name in shard.encodings if renamed({name: 0}, source.columns)}, **usual}
    if not set(usual.values()) & set(CONVERSATION_KEYS):
        raise ConfigError(
            f"{where}: no column messages or conversations; it has {', '.join(shard.encodings)}; "
            'say which with columns = {messages = "..."}'
        )
    decoders = {}
    for column, name in usual.items():
        encoding = shard.encodings[column]
        decode = decoder(encoding)
        if decode is None and name in STRUCTURE_KEYS:
            raise ConfigError(f"{where}: column {column!r} is of the encoding {encoding!r}, which is not read here")
        if decode is not None and (_is_own(shard, source) or name in STRUCTURE_KEYS or is_json(encoding)):
            decoders[column] = decode
    return decoders


def _is_own(shard: MdsShard, source: FileSource) -> bool:
    """Has it this project's columns, under their own names?"""
    return shard.encodings == MDS_COLUMNS and not source.columns


def _decoded(payloads: Mapping[str, memoryview], decoders: Decoders) -> dict[str, Any] | UnreadableRow:
    values = {}
    for column, decode in decoders.items():
        try:
            values[column] = decode(payloads[column])
        except ValueError as error:
            return UnreadableRow(detail=f"column {column}: {error}"[:300])
    return values


def _own_sample(values: dict[str, Any] | UnreadableRow, origin: Origin) -> RawSample | RejectedSample:
    """A sample of this project's columns: the same messages, alternatives, media and meta again."""
    try:
        if isinstance(values, UnreadableRow):
            raise RejectSample(UNREADABLE_JSON, values.detail)
        read, media = _own_record(values)
    except RejectSample as door:
        return RejectedSample(origin=origin, rejected=door.rejected)
    record = replace(read, source_id=values["sample_id"], meta=values["meta"])
    return RawSample(origin=origin, record=record, media=media)


def _own_record(values: Mapping[str, Any]) -> tuple[Record, dict[str, bytes | memoryview]]:
    media: memoryview = values["media"]
    try:
        table = [MediaFacts.from_row(row) for row in values["media_table"]]
        contents: dict[str, bytes | memoryview] = {
            facts.name: media[facts.offset : facts.offset + facts.size] for facts in table
        }
        return read_record([[values["messages"], *values["alternatives"]]]), contents
    except TypeError as error:
        raise RejectSample(UNREADABLE_JSON, f"alternatives or media_table: {error}") from error
