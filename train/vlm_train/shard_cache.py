"""Shards of an object store, or ranges of them, on the local disk: downloaded, checked, then used; shared by a node.

A file is named by the content hash of its shard, so its name says what must be in it, whichever mix, run or process
asks. It is checked when it comes, and again at its first use after a start; one that differs is downloaded again.
"""

import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from vlm_catalogs.console import note
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.object_store import ObjectStore, S3Location
from vlm_train.cache_folder import CacheFolder, Leaving

DIGEST_BYTES = 16
"""A range ends with the hash of what came, so that damage on the local disk is found."""
DOWNLOADS = 2
"""Of a shard whose hash differs: a second copy tells damage on the way from damage at its origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A whole shard, or some bytes of one."""

    at: S3Location
    shard_hash: str
    """xxh3_128 of the whole shard, as its part recorded it."""
    begin: int
    end: int
    is_whole: bool = True

    @property
    def name(self) -> str:
        """Its file in the cache."""
        return f"{self.shard_hash}.mds" if self.is_whole else f"{self.shard_hash}.{self.begin}-{self.end}"

    @property
    def num_bytes(self) -> int:
        """Bytes of its file."""
        return self.end - self.begin + (0 if self.is_whole else DIGEST_BYTES)


@dataclass(slots=True)
class Traffic:
    """What came over the network since somebody looked."""

    num_downloads: int = 0
    num_bytes: int = 0


class ShardCache:
    """Pieces in a folder that is shared with other processes; any number of threads may use it."""

    def __init__(self, folder: CacheFolder, store: ObjectStore) -> None:
        self._folder = folder
        self._store = store
        self._trusted: set[str] = set()
        self._traffic = Traffic()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()

    def has(self, piece: Piece) -> bool:
        """Is the piece here, and known to be right?"""
        return piece.name in self._trusted and self._folder.path(piece.name).exists()

    def path(self, piece: Piece) -> Path:
        """Where the file of the piece stands when it is here."""
        return self._folder.path(piece.name)

    def bring(self, piece: Piece, *, leaving: Leaving, wait: bool) -> bool:
        """See that the piece is here; False where it is not and ``wait`` is not set: no room, or another's turn.

        Raises DataError where its origin is damaged or missing, StorageError when it cannot be reached or written.
        """
        if self.has(piece):
            return True
        with self._folder.turn(piece.name, wait=wait) as is_mine:
            return is_mine and (self._is_right(piece) or self._fetch(piece, leaving=leaving, wait=wait))

    def capacity(self) -> int:
        """Bytes that can be here at once."""
        return self._folder.capacity()

    def take_traffic(self) -> Traffic:
        """What was downloaded since the last call."""
        with self._lock:
            taken, self._traffic = self._traffic, Traffic()
        return taken

    def close(self) -> None:
        """Let downloads end at their next byte."""
        self._is_closed.set()

    def _is_right(self, piece: Piece) -> bool:
        """Is the file here and what it must be? One that is not is removed."""
        path = self._folder.path(piece.name)
        try:
            problem = _problem(path, piece)
            if problem is None:
                os.utime(path)  # for other processes: used just now
        except FileNotFoundError:  # not there, or another process needed the room
            return False
        if problem is None:
            self._trusted.add(piece.name)
            return True
        note(f"{path}: damaged: {problem}; downloading {piece.at} again")
        self._folder.drop(piece.name)
        return False

    def _fetch(self, piece: Piece, *, leaving: Leaving, wait: bool) -> bool:
        size = piece.num_bytes
        try:
            staged = self._folder.stage(piece.name, size, leaving=leaving, wait=wait)
            if staged is None:
                return False
            try:
                self._download(piece, staged)
                self._folder.publish(piece.name, staged)
            finally:
                staged.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"[stream] cache: {piece.at} cannot be kept: {error}") from error
        self._trusted.add(piece.name)
        return True

    def _download(self, piece: Piece, path: Path) -> None:
        problem: str | None = None
        for _ in range(DOWNLOADS):
            self._write(piece, path)
            problem = _problem(path, piece)
            if problem is None:
                return
        raise DataError(f"{piece.at}: {problem}: damaged where it is stored")

    def _write(self, piece: Piece, path: Path) -> None:
        digest, size = xxhash.xxh3_128(), 0
        with path.open("r+b") as file:
            for block in self._blocks(piece):
                digest.update(block)
                size += len(block)
                if size > piece.end - piece.begin:
                    break  # what is too long is damaged however long it is
                file.write(block)
            if not piece.is_whole:
                file.write(digest.digest())
            file.truncate()
        with self._lock:
            self._traffic.num_downloads += 1
            self._traffic.num_bytes += size

    def _blocks(self, piece: Piece) -> Iterator[bytes]:
        span = {} if piece.is_whole else {"begin": piece.begin, "end": piece.end}
        for block in self._store.blocks(piece.at, **span):
            if self._is_closed.is_set():
                raise StorageError(f"{piece.at}: no longer wanted: the run ends")
            yield block


def _problem(path: Path, piece: Piece) -> str | None:
    """Why the file is not the piece; None where it is."""
    size = path.stat().st_size
    if size != piece.num_bytes:
        return f"{size:,} bytes, not the {piece.num_bytes:,} that were recorded"
    if piece.is_whole:
        found = file_hash(path)
        return None if found == piece.shard_hash else f"content hash {found}, but its part.json says {piece.shard_hash}"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        view = memoryview(content)
        try:
            is_right = xxhash.xxh3_128_digest(view[:-DIGEST_BYTES]) == view[-DIGEST_BYTES:]
        finally:
            view.release()
    return None if is_right else "its content differs from what was downloaded"
