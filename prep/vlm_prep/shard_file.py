"""How do the bytes of a shard get into its file? Past the system's page cache, where the file system allows it."""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from vlm_catalogs.errors import StorageError
from vlm_catalogs.hashing import content_hash

Buffer = bytes | memoryview

MAX_BUFFERS = 1024
"""How many the system takes in one ``writev`` (IOV_MAX)."""
BLOCK_BYTES = 4096
"""What direct writes are aligned to: as much as any disk asks for."""
DIRECT_BYTES = 1 << 23
"""Smaller files are left to the page cache: to wait for the disk costs more than pages for them."""
NUM_MEMORIES = 2
"""One is filled while what is in the other goes to the disk."""
FILES_IN_CACHE = 2
"""Of how many files, of those written last, the pages stay in the page cache, where they get there."""


class ShardFiles:
    """Writes files, one after the other; nothing is synced.

    A file is put together and hashed in memory that is used again, and goes from there to the disk, for which a thread
    waits: new pages of the page cache cost more than that copy, on a virtual machine whose host takes back free memory
    up to eight times as much. Each step is a few calls, which leave the interpreter's lock to others.
    """

    def __init__(self, *, max_direct_bytes: int) -> None:
        """``max_direct_bytes``: of each memory. Larger files go through the page cache."""
        self._max_direct_bytes = max_direct_bytes
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="shards to disk")
        self._memories: list[_Memory] = []
        """The one that was filled last stands last."""
        self._cached: list[Path] = []

    def write(self, path: Path, buffers: Sequence[Buffer], *, num_bytes: int) -> str:
        """The xxh3_128 of the new file that holds ``buffers`` and that may still be on its way to the disk.

        Raises StorageError, also for a file before. An existing file is never touched.
        """
        if not DIRECT_BYTES <= num_bytes <= self._max_direct_bytes:
            return self._write_through_cache(path, buffers, num_bytes)
        memory = self._next_memory()
        with _writing(path, num_bytes):
            content = memory.filled(buffers)
            descriptor = _new_file(path)
        memory.under_way = self._disk.submit(_write_whole, path, descriptor, content, num_bytes)
        return content_hash(content[:num_bytes])

    def finish(self) -> None:
        """Wait for the files that are on their way. Raises StorageError."""
        for memory in self._memories:
            memory.wait()

    def close(self) -> None:
        """Wait for them whatever happens to them, and give the memory back."""
        self._disk.shutdown(wait=True)
        while self._memories:
            self._memories.pop().close()

    def _next_memory(self) -> "_Memory":
        """The memory that has been free for longest, or will be."""
        is_new = len(self._memories) < NUM_MEMORIES
        memory = _Memory(self._max_direct_bytes) if is_new else self._memories.pop(0)
        self._memories.append(memory)
        memory.wait()
        return memory

    def _write_through_cache(self, path: Path, buffers: Sequence[Buffer], num_bytes: int) -> str:
        """The hash of the file, which the system is asked to write out soon."""
        with _writing(path, num_bytes), _closed(_new_file(path)) as descriptor:
            _write_all(descriptor, buffers)
            with mmap.mmap(descriptor, num_bytes, access=mmap.ACCESS_READ) as map_, memoryview(map_) as content:
                xxh3_128 = content_hash(content)  # in one call: no wait for the interpreter's lock in between
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # starts to write it out, and waits for nothing
        self._cached.append(path)
        if len(self._cached) > FILES_IN_CACHE:
            _let_go(self._cached.pop(0))
        return xxh3_128


class _Memory:
    """A memory file, mapped: the system fills it without the interpreter's lock."""

    def __init__(self, num_bytes: int) -> None:
        num_bytes = -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES
        self._descriptor = os.memfd_create("shard", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, num_bytes)
        self._content = memoryview(mmap.mmap(self._descriptor, num_bytes))
        self.under_way: Future[None] | None = None
        """The writing of what is in it."""

    def filled(self, buffers: Sequence[Buffer]) -> memoryview:
        """The whole memory, which begins with ``buffers``."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        _write_all(self._descriptor, buffers)
        return self._content

    def wait(self) -> None:
        """Until it may be filled. Raises StorageError when what was in it could not be written."""
        if self.under_way is not None:
            self.under_way.result()

    def close(self) -> None:
        """Give it back; where an error still has hold of a view, its map goes with that."""
        os.close(self._descriptor)


@contextmanager
def _writing(path: Path, num_bytes: int) -> Iterator[None]:
    """Raises StorageError for what goes wrong in it."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot write {num_bytes:,} bytes: {error.strerror}") from error


def _new_file(path: Path) -> int:
    """The descriptor of a file that was not there."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)


@contextmanager
def _closed(descriptor: int) -> Iterator[int]:
    """The descriptor, closed at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_whole(path: Path, descriptor: int, content: memoryview, num_bytes: int) -> None:
    """Write a file of the first bytes of ``content``, past the page cache where the file system allows it."""
    with _writing(path, num_bytes), _closed(descriptor):
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
            _write_at(descriptor, content[: -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES])
            os.ftruncate(descriptor, num_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:  # of a file system that takes no direct writes, or none of these blocks
                raise
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
            _write_at(descriptor, content[:num_bytes])


def _write_at(descriptor: int, content: memoryview) -> None:
    """Write ``content`` from the first byte on, however little the system takes at a time."""
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)


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


def _write_all(descriptor: int, buffers: Iterable[Buffer]) -> None:
    """Write all of ``buffers``, as many at a time as the system takes."""
    for batch in _batches(buffers):
        _write_batch(descriptor, batch)


def _batches(buffers: Iterable[Buffer]) -> Iterator[list[Buffer]]:
    filled = [buffer for buffer in buffers if len(buffer)]
    for begin in range(0, len(filled), MAX_BUFFERS):
        yield filled[begin : begin + MAX_BUFFERS]


def _write_batch(descriptor: int, buffers: list[Buffer]) -> None:
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
