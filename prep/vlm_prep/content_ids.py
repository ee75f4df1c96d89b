"""Content ids of local inputs (semantics A3): cheap to take, and different when the content is."""

import mmap
import os
from pathlib import Path

import xxhash

from vlm_catalogs.errors import StorageError

EDGE_BYTES = 1 << 20


def file_content_id(path: Path) -> tuple[int, str]:
    """The (size, xxh3_128 of the first and last MiB) of a file. Raises StorageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = xxhash.xxh3_128(file.read(EDGE_BYTES))
            if size > EDGE_BYTES:
                file.seek(max(size - EDGE_BYTES, EDGE_BYTES))
                digest.update(file.read(EDGE_BYTES))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    return size, digest.hexdigest()


def map_file(path: Path) -> memoryview:
    """The bytes of a file, mapped, not loaded. Raises StorageError when it cannot be read.

    The map lives as long as a view of it does.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
