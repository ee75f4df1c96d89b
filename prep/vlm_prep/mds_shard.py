"""MDS shard files written directly: byte for byte what ``streaming.MDSWriter`` writes for the same samples.

A shard is ``uint32 count``, ``uint32[count + 1]`` absolute offsets, the JSON of its configuration, then the samples. A
sample is a uint32 length for each column, then the columns' payloads, in alphabetical order of the columns' names
(streaming 0.13.0, base/format/mds/writer.py). Payloads are kept by reference until their shard is full and leave with
``writev``, so that media in memory-mapped files are never copied.
"""

import struct
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.layout import shard_name
from vlm_catalogs.sample import MDS_COLUMNS
from vlm_prep.shard_file import Buffer, ShardFiles

Payload = Buffer | Sequence[Buffer]
"""One column of one sample as it stands in the file: one buffer, or several that follow each other."""

COLUMN_NAMES = tuple(sorted(MDS_COLUMNS))
"""The order in which ``ShardWriter.write`` takes the payloads."""

MEDIA = COLUMN_NAMES.index("media")

LENGTHS = struct.Struct(f"<{len(COLUMN_NAMES)}I")
"""What a sample begins with: the bytes of each column."""

SIZE_LIMIT = 1 << 26
MAX_SHARD_BYTES = (1 << 32) - 1
"""Offsets are uint32."""


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

    With ``behind``, a thread writes and hashes a full shard while the next one is filled: neither needs the lock of the
    interpreter. A shard of more than ``size_limit`` is written at once, so that memory holds no two of those. Use the
    writer in a ``with`` statement then: it ends with no write under way, whatever happens.
    """

    def __init__(self, folder: Path, *, size_limit: int = SIZE_LIMIT, behind: bool = False) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shards") if behind else None
        self._files = ShardFiles()
        self._size_limit = size_limit
        self._header = json_text.dumps(dict(sorted(shard_config(size_limit).items()))).encode()
        self._hashes: list[Future[str]] = []
        """Of the closed shards; only the last one may still be under way."""
        self._closed: list[tuple[Path, tuple[int, ...]]] = []
        """Of each closed shard: its file, and the offsets of its samples."""
        self._start_shard()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)
        self._files.close()

    def write(self, columns: Sequence[Payload]) -> ShardPosition:
        """The position of the sample whose payloads, in the order of COLUMN_NAMES, are ``columns``.

        Payloads must stay valid and unchanged until their shard is written. Raises DataError for a sample that no shard
        can hold and StorageError when a full shard cannot be written (behind: when the next one is closed).
        """
        assert len(columns) == len(COLUMN_NAMES)
        lengths = [len(column) if type(column) is bytes else _num_bytes(column) for column in columns]
        size = LENGTHS.size + sum(lengths)
        if len(self._header) + 12 + size > MAX_SHARD_BYTES:
            raise DataError(f"a sample of {size:,} bytes: an MDS shard holds at most {MAX_SHARD_BYTES:,}")
        self._make_room(size)
        self._add_buffers(LENGTHS.pack(*lengths), columns)
        position = ShardPosition(len(self._closed), len(self._sizes) - 1)
        if self._file_bytes >= self._size_limit:  # nothing more fits; a large sample need not wait in memory
            self._close_shard()
        return position

    def write_run(self, columns: Sequence[Sequence[Buffer]]) -> list[ShardPosition]:
        """``write`` of many samples, column by column, each payload one buffer of at most ``size_limit`` bytes."""
        lengths = [list(map(len, column)) for column in columns]
        sizes = [LENGTHS.size + payloads for payloads in map(sum, zip(*lengths, strict=True))]
        before = map(b"".join, zip(map(LENGTHS.pack, *lengths), *columns[:MEDIA], strict=True))
        after = map(b"".join, zip(*columns[MEDIA + 1 :], strict=True))
        positions = []
        for size, begin, medium, end in zip(sizes, before, columns[MEDIA], after, strict=True):
            self._make_room(size)
            self._texts.append(begin)
            self._buffers += (b"".join(self._texts), medium)
            self._texts[:] = [end]
            positions.append(ShardPosition(len(self._closed), len(self._sizes) - 1))
        return positions

    def _make_room(self, size: int) -> None:
        """Have the shard begun that holds the next sample, of ``size`` bytes."""
        if self._sizes and self._file_bytes + size + 4 > self._size_limit:
            self._close_shard()
        self._file_bytes += size + 4
        self._sizes.append(size)

    def _add_buffers(self, lengths: bytes, columns: Sequence[Payload]) -> None:
        """Keep one sample's bytes. Texts that follow each other, those of the next sample too, become one buffer, since
        each buffer costs more than its bytes."""
        texts = self._texts
        texts.append(lengths)
        for column in columns:
            if type(column) is bytes:
                texts.append(column)
            else:
                buffers = _as_buffers(column)
                if buffers:
                    self._buffers.append(b"".join(texts))
                    self._buffers += buffers
                    texts.clear()

    def close(self) -> list[tuple[int, ...]]:
        """The offsets of every shard, the last one closed; with ``behind``, it may still be on its way to the file."""
        if self._sizes:
            self._close_shard()
        return [offsets for _, offsets in self._closed]

    def finish(self) -> tuple[ClosedShard, ...]:
        """All shards, the last one written; none when no sample was written. Raises StorageError."""
        self.close()
        shards = tuple(
            ClosedShard(
                name=path.name,
                bytes=offsets[-1],
                xxh3_128=xxh3_128.result(),
                num_samples=len(offsets) - 1,
                offsets=offsets,
            )
            for (path, offsets), xxh3_128 in zip(self._closed, self._hashes, strict=True)
        )
        self._files.finish()
        self._files.close()
        return shards

    def _start_shard(self) -> None:
        self._buffers: list[Buffer] = []
        self._texts: list[bytes] = []
        self._sizes: list[int] = []
        self._file_bytes = 8 + len(self._header)

    def _close_shard(self) -> None:
        first_offset = 4 * (len(self._sizes) + 2) + len(self._header)
        offsets = tuple(accumulate(self._sizes, initial=first_offset))
        head = struct.pack(f"<{len(offsets) + 1}I", len(self._sizes), *offsets) + self._header
        path = self._folder / shard_name(len(self._closed))
        self._write(path, [head, *self._buffers, b"".join(self._texts)], num_bytes=offsets[-1])
        self._closed.append((path, offsets))
        self._start_shard()

    def _write(self, path: Path, buffers: list[Buffer], *, num_bytes: int) -> None:
        """Write a shard, or have it written when those before it are. Raises StorageError, also for the one before."""
        if self._hashes:
            self._hashes[-1].result()
        if self._thread is not None and num_bytes <= self._size_limit:
            self._hashes.append(self._thread.submit(self._files.write, path, buffers, num_bytes=num_bytes))
        else:
            self._hashes.append(Future())
            self._hashes[-1].set_result(self._files.write(path, buffers, num_bytes=num_bytes))


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
