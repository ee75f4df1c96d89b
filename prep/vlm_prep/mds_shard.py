"""MDS shard files written directly: byte for byte what ``streaming.MDSWriter`` writes for the same samples.

A shard is ``uint32 count``, ``uint32[count + 1]`` absolute offsets, the JSON of its configuration, then the samples. A
sample is a uint32 length for each column, then the columns' payloads, in alphabetical order of the columns' names
(streaming 0.13.0, base/format/mds/writer.py). Payloads are kept by reference until their shard is full and leave with
``writev``, so that media in memory-mapped files are never copied.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import xxhash

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.layout import shard_name
from vlm_catalogs.sample import MDS_COLUMNS

Buffer = bytes | memoryview
Payload = Buffer | Sequence[Buffer]
"""One column of one sample as it stands in the file: one buffer, or several that follow each other."""

COLUMN_NAMES = tuple(sorted(MDS_COLUMNS))
"""The order in which ``ShardWriter.write`` takes the payloads."""

LENGTHS = struct.Struct(f"<{len(COLUMN_NAMES)}I")
"""What a sample begins with: the bytes of each column."""

SIZE_LIMIT = 1 << 26
MAX_SHARD_BYTES = (1 << 32) - 1
"""Offsets are uint32."""
SHARDS_IN_CACHE = 2
"""Of how many shards, of those written last, the pages stay in the system's cache."""
MAX_BUFFERS = 96
"""How many buffers are hashed and then written together: about 30 samples, which the processor's cache still holds when
they are written. The system would take 1,024 in one ``writev``; that costs 1.5 times as much."""


@frozen_by_types
class ShardPosition:
    """Where a written sample stands: its byte range is ``offsets[index:index + 2]`` of the closed shard."""

    shard: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedShard:
    """One shard file that is whole (but not yet synced to the disk)."""

    name: str
    bytes: int
    xxh3_128: str
    num_samples: int
    offsets: tuple[int, ...]
    """Sample i is the bytes ``offsets[i]:offsets[i + 1]`` of the file; num_samples + 1 numbers."""


class ShardWriter:
    """Writes the shards of one part into ``folder``, which must exist and hold no shard yet.

    A shard is closed before it would pass ``size_limit`` bytes; a sample that is larger stands alone in its shard. No
    empty shard is ever written. Nothing is synced: publication does that.
    """

    def __init__(self, folder: Path, *, size_limit: int = SIZE_LIMIT) -> None:
        self._folder = folder
        self._size_limit = size_limit
        self._header = json_text.dumps(dict(sorted(shard_config(size_limit).items()))).encode()
        self._closed: list[ClosedShard] = []
        self._start_shard()

    def write(self, columns: Sequence[Payload]) -> ShardPosition:
        """The position of the sample whose payloads, in the order of COLUMN_NAMES, are ``columns``.

        Payloads must stay valid and unchanged until their shard is closed. Raises DataError for a sample that no shard
        can hold and StorageError when a full shard cannot be written.
        """
        assert len(columns) == len(COLUMN_NAMES)
        lengths = [len(column) if type(column) is bytes else _num_bytes(column) for column in columns]
        size = LENGTHS.size + sum(lengths)
        if len(self._header) + 12 + size > MAX_SHARD_BYTES:
            raise DataError(f"a sample of {size:,} bytes: an MDS shard holds at most {MAX_SHARD_BYTES:,}")
        if self._sizes and self._file_bytes + size + 4 > self._size_limit:
            self._close_shard()
        self._file_bytes += size + 4
        self._add_buffers(LENGTHS.pack(*lengths), columns)
        self._sizes.append(size)
        position = ShardPosition(len(self._closed), len(self._sizes) - 1)
        if self._file_bytes >= self._size_limit:  # nothing more fits; a large sample need not wait in memory
            self._close_shard()
        return position

    def _add_buffers(self, lengths: bytes, columns: Sequence[Payload]) -> None:
        """Keep one sample's bytes: texts that follow each other joined, since each buffer costs more than its bytes."""
        texts = [lengths]
        for column in columns:
            if type(column) is bytes:
                texts.append(column)
            else:
                self._buffers.append(b"".join(texts))
                self._buffers.extend(_as_buffers(column))
                texts = []
        self._buffers.append(b"".join(texts))

    def finish(self) -> tuple[ClosedShard, ...]:
        """All shards, the last one closed; none when no sample was written. Raises StorageError."""
        if self._sizes:
            self._close_shard()
        return tuple(self._closed)

    def _start_shard(self) -> None:
        self._buffers: list[Buffer] = []
        self._sizes: list[int] = []
        self._file_bytes = 8 + len(self._header)

    def _close_shard(self) -> None:
        first_offset = 4 * (len(self._sizes) + 2) + len(self._header)
        offsets = tuple(accumulate(self._sizes, initial=first_offset))
        head = struct.pack(f"<{len(offsets) + 1}I", len(self._sizes), *offsets) + self._header
        path = self._folder / shard_name(len(self._closed))
        if len(self._closed) >= SHARDS_IN_CACHE:
            _let_go(self._folder / shard_name(len(self._closed) - SHARDS_IN_CACHE))
        xxh3_128 = _write_file(path, [head, *self._buffers], num_bytes=offsets[-1])
        self._closed.append(
            ClosedShard(
                name=path.name, bytes=offsets[-1], xxh3_128=xxh3_128, num_samples=len(self._sizes), offsets=offsets
            )
        )
        self._start_shard()


def shard_config(size_limit: int = SIZE_LIMIT) -> dict[str, Any]:
    """What MDSWriter writes into each shard and into each entry of index.json."""
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": [],
        "size_limit": size_limit,
        "column_names": list(COLUMN_NAMES),
        "column_encodings": [MDS_COLUMNS[name] for name in COLUMN_NAMES],
        "column_sizes": [None] * len(COLUMN_NAMES),
    }


def shard_index_entry(
    *, basename: str, num_bytes: int, num_samples: int, size_limit: int = SIZE_LIMIT
) -> dict[str, Any]:
    """The entry of one shard in the ``shards`` list of index.json; ``basename`` is relative to that file."""
    raw_data = {"basename": basename, "bytes": num_bytes, "hashes": {}}
    return {**shard_config(size_limit), "raw_data": raw_data, "samples": num_samples, "zip_data": None}


def _num_bytes(payload: Payload) -> int:
    return sum([len(buffer) for buffer in _as_buffers(payload)])


def _as_buffers(payload: Payload) -> Sequence[Buffer]:
    return (payload,) if isinstance(payload, (bytes, memoryview)) else payload


def _write_file(path: Path, buffers: list[Buffer], *, num_bytes: int) -> str:
    """The xxh3_128 of the new file that holds ``buffers``. Raises StorageError; an existing file is never touched."""
    digest = xxhash.xxh3_128()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            for batch in _batches(buffers):
                for buffer in batch:
                    digest.update(buffer)
                _write_all(descriptor, batch)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # starts to write it out, and waits for nothing
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"{path}: cannot write {num_bytes:,} bytes: {error.strerror}") from error
    return digest.hexdigest()


def _let_go(path: Path) -> None:
    """Take a shard's pages that are on the disk by now out of the system's cache.

    Whoever reads it next does so after the whole build. Its pages then serve the shards to come: a system that has to
    find gigabytes of fresh ones takes longer for that than for the copying, and forgets what other programs read.
    """
    with suppress(OSError):  # advice: the shard is whole without it
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _batches(buffers: Iterable[Buffer]) -> Iterator[list[Buffer]]:
    filled = [buffer for buffer in buffers if len(buffer)]
    for begin in range(0, len(filled), MAX_BUFFERS):
        yield filled[begin : begin + MAX_BUFFERS]


def _write_all(descriptor: int, buffers: list[Buffer]) -> None:
    """Write all of ``buffers``, however little the system takes at a time."""
    num_bytes = sum([len(buffer) for buffer in buffers])
    while buffers:
        written = os.writev(descriptor, buffers)
        if written == num_bytes:
            return
        num_bytes -= written
        while buffers and written >= len(buffers[0]):
            written -= len(buffers.pop(0))
        if written:
            buffers[0] = memoryview(buffers[0])[written:]
