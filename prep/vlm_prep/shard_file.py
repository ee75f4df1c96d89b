"""How do the bytes of a shard get into its file? Past the system's page cache, where the file system allows it."""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import xxhash

from vlm_catalogs.errors import StorageError

Buffer = bytes | memoryview

MAX_BUFFERS = 1024
"""How many the system takes in one ``writev`` (IOV_MAX)."""
BLOCK_BYTES = 4096
"""What direct writes are aligned to: as much as any disk asks for."""
PIECE_BYTES = 1 << 24
"""So much of a file is put together at a time."""
NUM_PIECES = 3
"""So many are on their way to the disk at most."""


class ShardFiles:
    """Writes files, one after the other; nothing is synced.

    Pieces of a file are put together and hashed in memory that is used again and again, and go from there to the disk,
    for which a thread waits: new pages of the page cache would cost more than that copy, on a virtual machine whose
    host takes back free memory up to eight times as much. Each step is a few calls, which leave the interpreter's lock
    to others.
    """

    def __init__(self) -> None:
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="shards to disk")
        self._pieces: list[_Piece] = []
        """The one that was filled last stands last."""
        self._ends: list[Future[None]] = []

    def write(self, path: Path, buffers: Iterable[Buffer], *, num_bytes: int) -> str:
        """The xxh3_128 of the new file that holds ``buffers`` and that may still be on its way to the disk.

        Raises StorageError, also for a file before. An existing file is never touched.
        """
        file = _NewFile(path, num_bytes)
        digest = xxhash.xxh3_128()
        offset = 0
        try:
            for some in _cut(buffers, PIECE_BYTES):
                with file.storing():
                    piece = self._next_piece()
                    size = piece.fill(some)
                piece.under_way = self._disk.submit(file.write, piece.content, size, offset)
                digest.update(piece.content[:size])
                offset += size
        finally:
            self._ends.append(self._disk.submit(file.end))
        return digest.hexdigest()

    def finish(self) -> None:
        """Wait for the files that are on their way. Raises StorageError."""
        for piece in self._pieces:
            piece.wait()
        for end in self._ends:
            end.result()

    def close(self) -> None:
        """Wait for them, whatever becomes of them; their memory is left to who writes next in this process."""
        self._disk.shutdown(wait=True)
        while self._pieces:
            piece = self._pieces.pop()
            piece.under_way = None
            SPARE_PIECES.append(piece)

    def _next_piece(self) -> "_Piece":
        """The piece that has been free for longest, or will be."""
        if len(self._pieces) == NUM_PIECES:
            piece = self._pieces.pop(0)
        else:
            piece = SPARE_PIECES.pop() if SPARE_PIECES else _Piece()
        self._pieces.append(piece)
        piece.wait()
        return piece


class _Piece:
    """Memory for a piece of a file: a file in memory, mapped, which the system fills without the interpreter's lock."""

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("piece", os.MFD_CLOEXEC)
        self.content = memoryview(b"")
        """Whole blocks; as many as the largest piece so far has needed."""
        self.under_way: Future[None] | None = None
        """The writing of what is in it."""

    def fill(self, buffers: list[Buffer]) -> int:
        """The bytes of ``buffers``, which ``content`` begins with."""
        room = -(-sum([len(buffer) for buffer in buffers]) // BLOCK_BYTES) * BLOCK_BYTES
        if room > len(self.content):
            os.ftruncate(self._descriptor, room)
            self.content = memoryview(mmap.mmap(self._descriptor, room))
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        for begin in range(0, len(buffers), MAX_BUFFERS):
            _write_all(self._descriptor, buffers[begin : begin + MAX_BUFFERS])
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def wait(self) -> None:
        """Until it may be filled. Raises StorageError when what was in it could not be written."""
        if self.under_way is not None:
            self.under_way.result()


SPARE_PIECES: list[_Piece] = []
"""Those that no one uses. Their pages are there, and stay: 48 MiB at most in a process with one part at a time."""


class _NewFile:
    """A file that was not there, written by pieces in order, past the page cache where the file system allows it."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        """``num_bytes``: of the whole file. Raises StorageError."""
        self._path = path
        self._num_bytes = num_bytes
        with self.storing():
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._is_direct = self._set_direct()

    def write(self, content: memoryview, size: int, offset: int) -> None:
        """Write the first ``size`` bytes of ``content``; after them, it has room for whole blocks."""
        with self.storing():
            if self._is_direct:
                try:
                    _write_at(self._descriptor, content[: -(-size // BLOCK_BYTES) * BLOCK_BYTES], offset)
                    return
                except OSError as error:
                    if error.errno != errno.EINVAL:  # that of a file system with other blocks
                        raise
                self._is_direct = self._set_direct(False)
            _write_at(self._descriptor, content[:size], offset)

    def end(self) -> None:
        """Close the file, cut to its size."""
        with self.storing():
            try:
                os.ftruncate(self._descriptor, self._num_bytes)
            finally:
                os.close(self._descriptor)

    def _set_direct(self, is_direct: bool = True) -> bool:
        """Whether the file is written directly now."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if is_direct else 0))
        except OSError:
            return False
        return is_direct

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Raises StorageError for what goes wrong in it."""
        try:
            yield
        except OSError as error:
            message = f"{self._path}: cannot write {self._num_bytes:,} bytes: {error.strerror}"
            raise StorageError(message) from error


def _cut(buffers: Iterable[Buffer], num_bytes: int) -> Iterator[list[Buffer]]:
    """The buffers in lists of so many bytes, the last one of fewer; a buffer may begin in one and end in the next."""
    some: list[Buffer] = []
    room = num_bytes
    for buffer in buffers:
        while len(buffer) >= room:
            some.append(memoryview(buffer)[:room])
            yield some
            buffer = memoryview(buffer)[room:]
            some, room = [], num_bytes
        if buffer:
            some.append(buffer)
            room -= len(buffer)
    if some:
        yield some


def _write_at(descriptor: int, content: memoryview, offset: int) -> None:
    """Write all of ``content``, however little the system takes at a time."""
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], offset + written)


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
