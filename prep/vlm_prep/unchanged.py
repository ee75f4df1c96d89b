"""Do a part's local inputs still stand as they did when the build looked at them? (Objects in S3: If-Match says so.)"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.object_store import is_s3
from vlm_prep.parts import PlannedPart

Stamp = tuple[int, int]
"""Bytes, and nanoseconds of the last change."""


def stamps_of(parts: Iterable[PlannedPart]) -> dict[str, Stamp]:
    """Path -> stamp of every local input. Raises StorageError for one that is gone."""
    paths = {part_input.path for part in parts for part_input in part.inputs if not is_s3(part_input.path)}
    return {path: _stamp(path) for path in sorted(paths)}


def check_unchanged(part: PlannedPart, stamps: Mapping[str, Stamp]) -> None:
    """Raise DataError, naming it, for an input whose stamp is not the one in ``stamps``; others are not looked at."""
    for path in dict.fromkeys(part_input.path for part_input in part.inputs):
        if path in stamps and (now := _stamp(path)) != stamps[path]:
            sizes = f"{stamps[path][0]:,} bytes then, {now[0]:,} now"
            raise DataError(f"{path}: has changed since this build looked at it ({sizes}); build again when it is done")


def _stamp(path: str) -> Stamp:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns
