"""An object store as the home of parts and mixes (semantics A4): files first, the marker last, and only where none is.

Nothing of a part is ever overwritten: a file that is there already must be the same one, left by a build that was
killed or that is at work beside this one. Parts are staged on the local disk, and leave it when they are stored.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xxhash

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import DELETE_OBJECTS, PART_FILE, PartRecord, part_folder
from vlm_catalogs.leftovers import STALE_SECONDS, remove_leftovers
from vlm_catalogs.manifest import MANIFEST_FILE
from vlm_catalogs.object_copies import ObjectCopies, is_same
from vlm_catalogs.object_store import S3Location
from vlm_prep.staging import (
    OWNER_FILE,
    SAYS_ELSE,
    STAGING,
    Owner,
    is_dead_here,
    refuse_company,
    staging_folder,
    wants_to_be_alone,
    writing,
)

UPLOADS_AT_ONCE = 8
Upload = Callable[[Path, S3Location], None]
SHARD_SUFFIX = ".mds"


@dataclass(frozen=True, slots=True)
class S3Store:
    """A prefix of a bucket, seen through the folder of its copies."""

    copies: ObjectCopies
    folder: Path

    def bring(self, paths: Iterable[Path], *, below: Path) -> None:
        """As PartStore."""
        self.copies.bring(paths, below=below)

    @contextmanager
    def fetched(self, shard: Path) -> Iterator[Path]:
        """As PartStore."""
        with self.copies.fetched(shard) as path:
            yield path

    def check_sizes(self, layout: Path, records: Sequence[PartRecord]) -> None:
        """As PartStore, from one listing."""
        listed = self.copies.list(layout / "parts")
        for record in records:
            folder = part_folder(layout, record.name)
            for file in (*record.shards, *record.tables):
                found = listed.get(folder / file.name)
                if found is None or found.bytes != file.bytes:
                    raise DataError(
                        f"{self.shown(folder / file.name)}: expected {file.bytes:,} bytes; {DELETE_OBJECTS}"
                    )

    @property
    def keeps_parts_here(self) -> bool:
        """As PartStore: only those in work are here."""
        return False

    @contextmanager
    def staging(self, *, alone: bool = False) -> Iterator[Path]:
        """As PartStore; an object beside the parts tells other machines of it."""
        for at, _ in self._owners(stale=True):
            self.copies.objects.delete(at)
        remove_leftovers(self.copies.folder)
        with staging_folder(self.folder, alone=alone, shown=self.shown(self.folder)) as folder:
            at = self._tell_of(folder)
            try:
                refuse_company(self.shown(self.folder), self.live_owners(), folder.name, alone=alone)
                yield folder
            except StorageError:  # the store may not answer; the next build removes what tells of a dead one
                raise
            except BaseException:
                self.copies.objects.delete(at)
                raise
            self.copies.objects.delete(at)

    def live_owners(self) -> list[Owner]:
        """As PartStore."""
        return [Owner(at.key.split("/")[-2], wants_to_be_alone(owner)) for at, owner in self._owners(stale=False)]

    def publish_part(self, staged: Path, target: Path) -> None:
        """As PartStore."""
        self._tell_of(staged.parent)
        marker, ours = self.copies.location(target) / PART_FILE, (staged / PART_FILE).read_bytes()
        theirs = self._read_if_there(marker)
        if theirs is None:
            files = [path for path in sorted(staged.iterdir()) if path.name != PART_FILE]
            self._upload(files, target, self._store_once)
            theirs = ours if self.copies.objects.put_if_absent(marker, ours) else self.copies.objects.read(marker)
        if theirs != ours:
            raise DataError(f"{marker}: {SAYS_ELSE}")
        self._keep_copies(staged, target, last=PART_FILE)

    def publish_version(self, staged: Path, target: Path) -> None:
        """As PartStore; the name of a version is the hash of what it pins, so its files may be written again."""
        marker, ours = self.copies.location(target) / MANIFEST_FILE, (staged / MANIFEST_FILE).read_bytes()
        files = [path for path in sorted(staged.iterdir()) if path.name != MANIFEST_FILE]
        self._upload(files, target, self.copies.objects.upload)
        if not self.copies.objects.put_if_absent(marker, ours) and self.copies.objects.read(marker) != ours:
            raise DataError(f"{marker}: {SAYS_ELSE}")
        self._keep_copies(staged, target, last=MANIFEST_FILE)

    def publish_file(self, staged: Path, target: Path) -> None:
        """As PartStore."""
        self._tell_of(staged.parent)
        self._store_once(staged, self.copies.location(target))
        self._keep_copy(staged, target)

    def publish_text(self, text: str, target: Path, *, staging: Path) -> None:
        """As PartStore."""
        content = text.encode()
        at = self.copies.location(target)
        if self._read_if_there(at) != content:
            self.copies.objects.put(at, content)
        staged = staging / f"text-{time.monotonic_ns()}"
        with writing(staged):
            staged.write_bytes(content)
        self._keep_copy(staged, target)

    def bring_matching(self, pattern: str, *, below: Path) -> list[Path]:
        """As PartStore."""
        paths = sorted(path for path in self.copies.list(below) if path.parent == below and path.match(pattern))
        self.copies.bring(paths, below=below)
        return paths

    def delete(self, path: Path) -> None:
        """As PartStore."""
        self.copies.objects.delete(self.copies.location(path))
        path.unlink(missing_ok=True)

    def delete_part(self, folder: Path, *, staging: Path) -> None:
        """As PartStore: its marker first."""
        for path in sorted(self.copies.list(folder), key=lambda path: path.name != PART_FILE):
            self.delete(path)

    def replace_part(self, staged: Path, target: Path, *, away: Path, sound: Sequence[Path]) -> None:
        """As PartStore: copied away within the store, then taken away marker first, then stored anew marker last."""
        self._tell_of(staged.parent)
        broken = [path for path in self.copies.list(target) if path not in sound]
        self._copy_all(broken, target, away)
        for path in sorted(broken, key=lambda path: path != target / PART_FILE):
            self.delete(path)
        self.publish_part(staged, target)

    def _copy_all(self, paths: Sequence[Path], below: Path, other: Path) -> None:
        """Copy objects to below another place, within the store."""
        from_at, to = self.copies.location, self.copies.objects.copy
        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="copies") as pool:
            for _ in pool.map(lambda path: to(from_at(path), from_at(other / path.relative_to(below))), paths):
                pass

    def shown(self, path: Path) -> str:
        """As PartStore."""
        return self.copies.shown(path)

    def _tell_of(self, staging: Path) -> S3Location:
        """Store that the owner of a staging folder lives now: of another machine nothing else tells so for days."""
        owner = json_text.loads((staging / OWNER_FILE).read_bytes())
        at = self.copies.location(staging) / OWNER_FILE
        self.copies.objects.put(at, json_text.dumps({**owner, "time": int(time.time())}).encode())
        return at

    def _read_if_there(self, at: S3Location) -> bytes | None:
        return self.copies.objects.read(at) if self.copies.objects.head(at) is not None else None

    def _upload(self, files: Sequence[Path], target: Path, upload: Upload) -> None:
        at = self.copies.location(target)
        with ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="uploads") as pool:
            for _ in pool.map(lambda path: upload(path, at / path.name), files):
                pass

    def _store_once(self, path: Path, at: S3Location) -> None:
        """Store the file where none is. Raises DataError where another one is."""
        if self.copies.objects.upload_if_absent(path, at):
            return
        found = self.copies.objects.head(at)
        if found is None or is_same(path, found):
            return
        digest = xxhash.xxh3_128()  # an ETag is not always an MD5
        for block in self.copies.objects.blocks(at):
            digest.update(block)
        if digest.hexdigest() != file_hash(path):
            raise DataError(
                f"{at}: holds something else than this build of the same inputs; was it written by another version? "
                "Delete what lies beside it too, if there is no part.json, and build again"
            )

    def _keep_copies(self, staged: Path, target: Path, *, last: str) -> None:
        """Keep what was stored as copies, but for shards: they would fill the disk."""
        paths = [path for path in staged.iterdir() if path.suffix != SHARD_SUFFIX]
        for path in sorted(paths, key=lambda path: path.name == last):
            self._keep_copy(path, target / path.name)
        shutil.rmtree(staged)

    def _keep_copy(self, staged: Path, target: Path) -> None:
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(target)

    def _owners(self, *, stale: bool) -> list[tuple[S3Location, bytes]]:
        """The objects that tell of builds: those of builds that are over without having said so, or the others."""
        paths = [path for path in self.copies.list(self.folder / STAGING) if path.name == OWNER_FILE]
        found = []
        for at in map(self.copies.location, paths):
            owner = self._read_if_there(at)
            if owner is not None and _is_stale(owner) == stale:
                found.append((at, owner))
        return found


def _is_stale(owner: bytes) -> bool:
    """As for local staging: the owner's life decides on its host, elsewhere a day does."""
    is_dead = is_dead_here(owner)
    if is_dead is not None:
        return is_dead
    try:
        return time.time() - float(json_text.loads(owner)["time"]) > STALE_SECONDS
    except (ValueError, KeyError, TypeError):
        return True
