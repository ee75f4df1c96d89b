"""Readers, one per source format: a source's files give parts, a part's inputs give raw samples or named rejections.

A format is one module with ``plan_parts(source, files)`` and ``read_part(source, inputs, limits)``.
"""

from collections.abc import Iterator

from vlm_catalogs.source import FileSource, I4Source, Source
from vlm_prep.parts import PlannedPart
from vlm_prep.plain_run import PlainRun
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import arrow, i4, jsonl, llava, mds, parquet, webdataset
from vlm_prep.source_format import find_files


def plan_files(source: FileSource, file_format: str) -> list[PlannedPart]:
    """The parts of a normal source in order. Raises ConfigError, DataError or StorageError."""
    files = find_files(source, file_format)
    match file_format:
        case "arrow":
            return arrow.plan_parts(source, files)
        case "mds":
            return mds.plan_parts(source, files)
        case "parquet":
            return parquet.plan_parts(source, files)
        case "webdataset":
            return webdataset.plan_parts(source, files)
        case "jsonl":
            return jsonl.plan_parts(source, files)
    return llava.plan_parts(source, files)


def stated_samples(source: FileSource, file_format: str) -> int | None:
    """How many samples the source says that it has; None when it does not say."""
    return webdataset.stated_samples(find_files(source, file_format)) if file_format == "webdataset" else None


def read_part(
    source: Source, file_format: str, part: PlannedPart, limits: Limits
) -> Iterator[RawSample | RejectedSample]:
    """The samples of one part in source order. Raises DataError or StorageError, never for a single bad sample."""
    if isinstance(source, I4Source):
        return i4.read_part(source, part.inputs, limits)
    match file_format:
        case "arrow":
            return arrow.read_part(source, part.inputs, limits)
        case "mds":
            return mds.read_part(source, part.inputs, limits)
        case "parquet":
            return parquet.read_part(source, part.inputs, limits)
        case "webdataset":
            return webdataset.read_part(source, part.inputs, limits)
        case "jsonl":
            return jsonl.read_part(source, part.inputs, limits)
    return llava.read_part(source, part.inputs, limits)


def read_part_in_runs(
    source: Source, file_format: str, part: PlannedPart, limits: Limits
) -> Iterator[PlainRun | RawSample | RejectedSample]:
    """As ``read_part``, but plain samples together where many may follow each other."""
    if isinstance(source, I4Source):
        return i4.read_part_in_runs(source, part.inputs, limits)
    return read_part(source, file_format, part, limits)
