"""A folder of a bounded size that all processes of a node share: who may write which file, and which file leaves.

Turns are ``flock``s: they end with the process that holds them, so that a SIGKILL leaves no lock behind, and at most a
staged file, which the next process removes. A file is staged under a dot name in its full size, so that its room is
taken, and renamed when it is whole. Removing a file that another process has mapped harms nobody: maps stay valid.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.errors import ConfigError, StorageError

MARKER = "vlm-mix-shard-cache"
"""A folder without this file, and not empty, is somebody's data: nothing in it is ever removed."""
LOCKS = "locks"
ROOM_LOCK = "room.lock"
STAGED = ".staged"
FREE_BYTES = 256 << 20
"""What a cache leaves of the disk to others."""
SECONDS_BETWEEN_LOOKS = 0.05
Leaving = Callable[[str], tuple[bool, float] | None]
"""Name of a file -> None where it must stay, else a pair: the largest leaves first."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    bytes: int
    used_at: float


class CacheFolder:
    """Files by name, at most ``limit`` bytes of them (None: what the disk has).

    Raises ConfigError for a folder that holds something else, StorageError when it cannot be written.
    """

    def __init__(self, folder: Path, *, limit: int | None) -> None:
        self._folder = folder
        self.limit = limit
        try:
            if not self._is_ours():
                self._refuse()
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARKER).touch()
            (folder / LOCKS).mkdir(exist_ok=True)
            with self._room():
                self._remove_abandoned()
        except OSError as error:
            raise StorageError(f"[stream] cache: {folder}: cannot be written: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """Where the file ``name`` stands when it is there, whole."""
        return self._folder / name

    def used(self) -> int:
        """Bytes of all files, those that are being written in full."""
        with self._room():
            return sum(file.bytes for file in self._files())

    def capacity(self) -> int:
        """Bytes that it can hold at the most now: its limit, or what the disk leaves."""
        used = sum(file.bytes for file in self._files())
        on_disk = used + shutil.disk_usage(self._folder).free - FREE_BYTES
        return on_disk if self.limit is None else min(self.limit, on_disk)

    @contextmanager
    def turn(self, name: str, *, wait: bool) -> Iterator[bool]:
        """True while we alone may write ``name``; False, at once, where another may and ``wait`` is not set."""
        path = self._folder / LOCKS / name
        descriptor = _lock(path, wait=wait)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                path.unlink(missing_ok=True)  # whoever waits for it finds that it is gone, and makes a new one
                os.close(descriptor)

    def stage(self, name: str, size: int, *, leaving: Leaving, wait: bool) -> Path | None:
        """A file of ``size`` bytes to write and to ``publish``; call it within the turn of ``name``.

        Files leave for it as ``leaving`` says. None where they do not suffice and ``wait`` is not set; else what others
        are writing is waited for. Raises StorageError where that would not help.
        """
        while True:
            with self._room():
                is_free = self._make_room(size, leaving)
                if is_free:
                    return self._staged(name, size)
                is_busy = any(file.path.name.endswith(STAGED) for file in self._files())
            if not wait:
                return None
            if not is_busy:
                raise StorageError(
                    f"[stream] cache: {self._folder}: {size:,} bytes are needed, it can hold {self.capacity():,}; "
                    "raise [stream] cache_limit or free the disk"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def publish(self, name: str, staged: Path) -> None:
        """Give a staged file its name; under the lock, so that whoever counts sees it once."""
        with self._room():
            staged.rename(self.path(name))

    def drop(self, name: str) -> None:
        """Remove the file, within its turn."""
        self.path(name).unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        folder = self._folder
        return not folder.exists() or (folder / MARKER).exists() or not any(folder.iterdir())

    def _refuse(self) -> None:
        raise ConfigError(
            f"[stream] cache: {self._folder}: holds other files, and a cache removes what it does not need; "
            "name an empty folder, or one that does not exist"
        )

    def _room(self) -> "_Held":
        return _Held(self._folder / ROOM_LOCK)

    def _files(self) -> list[_File]:
        """What takes room, staged files included."""
        files = []
        for entry in os.scandir(self._folder):
            if entry.name in (MARKER, ROOM_LOCK, LOCKS):
                continue
            try:
                facts = entry.stat()
            except FileNotFoundError:  # renamed or removed meanwhile
                continue
            files.append(_File(Path(entry.path), facts.st_size, facts.st_mtime))
        return files

    def _make_room(self, size: int, leaving: Leaving) -> bool:
        self._remove_abandoned()
        files = self._files()
        lacking = sum(file.bytes for file in files) + size - self.capacity()
        if lacking <= 0:
            return True
        ranked = [(leaving(file.path.name), file) for file in files if not file.path.name.endswith(STAGED)]
        may_leave = [(rank, file) for rank, file in ranked if rank is not None]
        if sum(file.bytes for _, file in may_leave) < lacking:
            return False
        for _, file in sorted(may_leave, key=lambda one: (one[0], -one[1].used_at), reverse=True):
            if lacking > 0:
                file.path.unlink(missing_ok=True)
                lacking -= file.bytes
        return True

    def _staged(self, name: str, size: int) -> Path:
        path = self._folder / f".{name}{STAGED}"
        with path.open("wb") as file:
            file.truncate(size)
        return path

    def _remove_abandoned(self) -> None:
        """Remove what a killed process has staged: nobody has the turn of its name."""
        for path in self._folder.glob(f".*{STAGED}"):
            with self.turn(path.name.removeprefix(".").removesuffix(STAGED), wait=False) as is_abandoned:
                if is_abandoned:
                    path.unlink(missing_ok=True)


class _Held:
    """A lock file, held in a ``with``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)


def _lock(path: Path, *, wait: bool) -> int | None:
    """The descriptor of the locked file at ``path``; None where another has it and ``wait`` is not set."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_still_there(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_still_there(path: Path, descriptor: int) -> bool:
    """Is the locked file the one that has this name now, and not one that its last holder has removed?"""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
