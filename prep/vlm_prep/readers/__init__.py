"""Readers, one per source format, with one signature: the inputs of a part give raw samples or named rejections."""

from collections.abc import Iterator

from vlm_catalogs.source import I4Source, Source
from vlm_prep.parts import PlannedPart
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import i4, jsonl, llava


def read_part(
    source: Source, file_format: str, part: PlannedPart, limits: Limits
) -> Iterator[RawSample | RejectedSample]:
    """The samples of one part in source order. Raises DataError or StorageError, never for a single bad sample."""
    if isinstance(source, I4Source):
        return i4.read_part(source, part.inputs, limits)
    if file_format == "jsonl":
        return jsonl.read_part(source, part.inputs, limits)
    return llava.read_part(source, part.inputs, limits)
