"""Small objects of a store (index files, manifests) as files on this machine, in the tree that their keys make.

A copy holds nothing but content, and is compared with the store before it is trusted: by its hash where one is known,
else by the listing's size and ETag. So no record of it can go stale, and any number of processes may share the folder.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.leftovers import remove_leftovers, temporary_name
from vlm_catalogs.object_store import ObjectStore, S3Location, StoredObject, md5_of

COPIES_AT_ONCE = 16
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectCopies:
    """Copies below ``<folder>/<bucket>/<key>``."""

    objects: ObjectStore
    folder: Path
    """Absolute, without links in it."""

    def path(self, at: S3Location) -> Path:
        """Where the copy of an object, or of all below it, stands. Raises DataError for a key that leads elsewhere."""
        names = [at.bucket, *at.key.split("/")]
        if ".." in names:
            raise DataError(f"{at}: '..' is no name in a bucket; name the object directly")
        return self.folder.joinpath(*names)

    def has_place_for(self, path: Path) -> bool:
        """Does ``path`` stand for something in the store?"""
        return path.is_relative_to(self.folder)

    def location(self, path: Path) -> S3Location:
        """What ``path`` is a copy of."""
        bucket, *names = path.relative_to(self.folder).parts
        return S3Location(bucket=bucket, key="/".join(names))

    def shown(self, path: Path) -> str:
        """The address for people: of the object where ``path`` is a copy."""
        return str(self.location(path)) if self.has_place_for(path) else str(path)

    def list(self, below: Path) -> dict[Path, StoredObject]:
        """What the store has below ``below``, by the paths of its copies. Raises StorageError."""
        at = self.location(below)
        prefix = S3Location(bucket=at.bucket, key=f"{at.key}/" if at.key else "")
        listed = self.objects.list(prefix)
        return {self.path(S3Location(bucket=at.bucket, key=one.key)): one for one in listed if one.key[-1] != "/"}

    def bring(self, paths: Iterable[Path], *, below: Path) -> None:
        """Make ``paths`` what the store has, from one listing of ``below``: what it does not have, is not here either.

        Raises DataError or StorageError.
        """
        wanted = list(paths)
        if not wanted:
            return
        listed = self.list(below)
        _each(lambda path: self._refresh(path, listed.get(path)), wanted)

    def bring_one(self, path: Path) -> bool:
        """Make ``path`` what the store has now; False where it has none. Raises DataError or StorageError."""
        found = self.objects.head(self.location(path))
        self._refresh(path, found)
        return found is not None

    def bring_pinned(self, pins: Iterable[tuple[Path, str]]) -> None:
        """Have each path with the content of its xxh3_128 here; copies that are right cost no request.

        Raises DataError for an object that is missing or of another content, StorageError.
        """
        _each(lambda pin: self._bring_pinned(*pin), pins)

    @contextmanager
    def fetched(self, path: Path) -> Iterator[Path]:
        """``path``, or for as long as this lasts a copy of the object that it stands for: of a shard none is kept.

        Raises DataError or StorageError.
        """
        if not self.has_place_for(path):
            yield path
            return
        remove_leftovers(self.folder)
        scratch = self.folder / temporary_name("fetched")
        try:
            self.fetch(self.location(path), scratch / path.name)
            yield scratch / path.name
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def fetch(self, at: S3Location, path: Path) -> None:
        """Copy an object to ``path``. Raises DataError or StorageError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.objects.download(at, path, partials=self.folder)
        except OSError as error:
            raise StorageError(f"{path}: {at} cannot be copied here: {error.strerror}") from error

    def _refresh(self, path: Path, found: StoredObject | None) -> None:
        if found is not None:
            if not is_same(path, found):
                self._copy(path)
        elif path.exists() and self.objects.head(self.location(path)) is None:  # it may have come since the listing
            path.unlink(missing_ok=True)

    def _bring_pinned(self, path: Path, xxh3_128: str) -> None:
        if path.is_file() and file_hash(path) == xxh3_128:
            return
        self._copy(path)
        if (found := file_hash(path)) != xxh3_128:
            raise DataError(f"{self.location(path)}: damaged: content hash {found}, it was built with {xxh3_128}")

    def _copy(self, path: Path) -> None:
        self.fetch(self.location(path), path)


def is_same(path: Path, found: StoredObject) -> bool:
    """Does the file hold what the listing says? False, too, where an ETag is no MD5 (several pieces, KMS)."""
    try:
        return path.stat().st_size == found.bytes and md5_of(path) == found.etag
    except FileNotFoundError:
        return False


def _each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    with ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="copies") as pool:
        for _ in pool.map(work, items):
            pass
