"""One row of a JSONL or JSON file read into a sample, whatever the file's format."""

from collections.abc import Mapping
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.source import FileSource
from vlm_prep.columns import renamed
from vlm_prep.conversation import Record, RejectSample, is_wrapped, read_plain_record, read_record
from vlm_prep.parts import PartInput
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.readers.loose_media import MediaFolder, load_media
from vlm_prep.reasons import BAD_CONVERSATION, SAMPLE_TOO_LARGE, UNREADABLE_JSON
from vlm_prep.source_format import source_root


def media_folder(source: FileSource, part_input: PartInput) -> MediaFolder:
    """Where relative media paths of this file start from, and the folder that none may leave."""
    if source.media_root is not None:
        return MediaFolder(start=Path(source.media_root), boundary=Path(source.media_root))
    return MediaFolder(start=Path(part_input.path).parent, boundary=source_root(source))


def row_origin(part_input: PartInput, *, row: int, offset: int) -> Origin:
    """Where a row stands; its sample_id counts the rows of the whole file from 0."""
    name = part_input.name
    return Origin(sample_id=f"{name}#{row:09d}", source_uri=name, byte_offset=part_input.begin + offset)


def read_row(
    text: memoryview, origin: Origin, folder: MediaFolder, limits: Limits, *, columns: Mapping[str, str]
) -> RawSample | RejectedSample:
    """The sample of one row; ``columns`` are the names that the TOML maps."""
    source_id = None
    try:
        if len(text) > limits.max_sample_bytes:
            raise RejectSample(SAMPLE_TOO_LARGE, f"{len(text):,} bytes of text, max_sample_bytes is the limit")
        record = (None if columns else read_plain_record(text)) or _read_record(text, columns)
        source_id = record.source_id
        media = load_media(record.names(), folder, limits, max_bytes=limits.max_sample_bytes - len(text))
    except RejectSample as door:
        return RejectedSample(origin=origin, rejected=door.rejected, source_id=source_id)
    return RawSample(origin=origin, record=record, media=media)


def _read_record(text: memoryview, columns: Mapping[str, str]) -> Record:
    try:
        value = json_text.loads(text)
    except ValueError as error:
        raise RejectSample(UNREADABLE_JSON, str(error)) from error
    if isinstance(value, list) and len(value) > 1 and all(map(is_wrapped, value)):
        # As alternatives of one sample they would be a whole dataset that is never seen at once.
        detail = f"an array of {len(value):,} records, expected one; a file that is one array is named .json"
        raise RejectSample(BAD_CONVERSATION, detail)
    return read_record([renamed(value, columns) if isinstance(value, dict) else value])
