"""Parts whose loose media were mended: content ids cover JSON files, not the media beside them (semantics A3).

A part keeps the samples that were rejected for a missing or broken medium. When the user has put that right, the part
gets another name, so that it is converted again; parts that older mixes pin stay as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.source import FileSource
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.content_ids import map_file
from vlm_prep.file_inputs import line_end, range_elements
from vlm_prep.parts import PartInput, PlannedPart
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.readers import read_part
from vlm_prep.readers.file_rows import media_folder, read_row
from vlm_prep.reasons import MEDIA_EMPTY, MEDIA_KIND_MISMATCH, MEDIA_OUTSIDE_ROOT, MEDIA_UNREADABLE, MISSING_MEDIA

MEDIA_REASONS = (MISSING_MEDIA, MEDIA_EMPTY, MEDIA_UNREADABLE, MEDIA_KIND_MISMATCH, MEDIA_OUTSIDE_ROOT)
WITH_LOOSE_MEDIA = ("parquet", "arrow")
"""Tables whose rows may name files beside them."""


def renamed_if_mended(
    source: FileSource, file_format: str, part: PlannedPart, *, folder: Path, limits: Limits
) -> PlannedPart:
    """The part as it is, or under the name that it has with the samples that could be kept now.

    ``folder``: where the part lies under its own name; nothing is read when it is not there.
    """
    samples = folder / "samples.parquet"
    if not samples.is_file():
        return part
    if file_format in ("jsonl", "llava"):
        mended = _mended_rows(source, file_format, part, samples, limits)
    else:
        mended = _mended_in_table(source, file_format, part, samples, limits)
    return replace(part, name=joined_hash([part.name, *mended])) if mended else part


def _mended_rows(source: FileSource, file_format: str, part: PlannedPart, samples: Path, limits: Limits) -> list[str]:
    (part_input,) = part.inputs
    return [
        origin.sample_id
        for origin in _rejected_for_media(samples, MEDIA_REASONS)
        if _can_be_kept(source, file_format, part_input, origin, limits=limits)
    ]


def _mended_in_table(
    source: FileSource, file_format: str, part: PlannedPart, samples: Path, limits: Limits
) -> list[str]:
    """Tables are read again only where a file beside them was missing: what stands inside them cannot be mended."""
    missing = {origin.sample_id for origin in _rejected_for_media(samples, (MISSING_MEDIA,))}
    if file_format not in WITH_LOOSE_MEDIA or not missing:
        return []
    found = (raw for raw in read_part(source, file_format, part, limits) if raw.origin.sample_id in missing)
    return [raw.origin.sample_id for raw in found if _is_kept(raw, limits)]


def _is_kept(raw: RawSample | RejectedSample, limits: Limits) -> bool:
    return isinstance(raw, RawSample) and isinstance(build_sample(raw, limits), BuiltSample)


def _rejected_for_media(samples: Path, reasons: Sequence[str]) -> Iterator[Origin]:
    columns = ["sample_id", "source_uri", "byte_offset", "reason"]
    try:
        rows = pq.read_table(samples, columns=columns, filters=[("reason", "in", reasons)]).to_pylist()
    except (pa.ArrowException, OSError):
        return  # damaged: whoever uses the part sees it by its hash, and says so
    for row in rows:
        yield Origin(sample_id=row["sample_id"], source_uri=row["source_uri"], byte_offset=row["byte_offset"])


def _can_be_kept(
    source: FileSource, file_format: str, part_input: PartInput, origin: Origin, *, limits: Limits
) -> bool:
    assert origin.byte_offset is not None
    part_end = part_input.begin + part_input.bytes
    text = _row_text(Path(part_input.path), origin.byte_offset, part_end, file_format=file_format)
    raw = read_row(text, origin, media_folder(source, part_input), limits, columns=source.columns)
    return _is_kept(raw, limits)


def _row_text(path: Path, begin: int, part_end: int, *, file_format: str) -> memoryview:
    """The row that begins at ``begin``: a line of JSONL, an element of an array."""
    content = map_file(path)
    if file_format == "llava":
        first_begin, first_end = next(range_elements(content[begin:part_end]))
        return content[begin + first_begin : begin + first_end]
    return content[begin : line_end(content, begin)]
