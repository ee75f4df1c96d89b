"""Where converted parts and mixes are kept: what a build asks of it, and the answer of a local folder.

A store is seen through a folder. In a local one lies what it holds; that of an object store (``s3_store``) has copies
of its index files. ``bring`` makes files of the folder true to the store before they are read; ``publish_*`` puts what
was staged under its name, whole or not at all.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlm_catalogs.errors import StorageError
from vlm_catalogs.layout import (
    DELETE_OBJECTS,
    MOVE_AWAY,
    PART_FILE,
    PartRecord,
    StoredFile,
    check_stored,
    part_folder,
    read_part,
)
from vlm_catalogs.manifest import MANIFEST_FILE
from vlm_prep.staging import (
    Owner,
    live_owners,
    publish_file,
    publish_folder,
    publish_text,
    staging_folder,
    writing,
)


class PartStore(Protocol):
    """A home of parts or mixes; crosses to worker processes. All its verbs raise StorageError when it fails."""

    @property
    def folder(self) -> Path:
        """What is read, and what paths below it name."""

    def bring(self, paths: Iterable[Path], *, below: Path) -> None:
        """Make small files below ``below`` readable as the store has them now; what it has not, is not there."""

    @contextmanager
    def fetched(self, shard: Path) -> Iterator[Path]:
        """A path from which a shard can be read for as long as this lasts."""

    def check_sizes(self, layout: Path, records: Sequence[PartRecord]) -> None:
        """See that all files of parts are there, by their sizes. Raises DataError."""

    @property
    def keeps_parts_here(self) -> bool:
        """Do parts stay on this machine when they are published?"""

    @contextmanager
    def staging(self, *, alone: bool = False) -> Iterator[Path]:
        """A new local folder, removed at the end; as long as it is there, this store is being built in.

        ``alone``: parts are taken away meanwhile. Raises DataError where anything else is at work then, or where what
        is at work must be alone.
        """

    def publish_part(self, staged: Path, target: Path) -> None:
        """Give a staged part its name. Raises DataError where one is there that says something else."""

    def publish_version(self, staged: Path, target: Path) -> None:
        """Give a staged version of a mix its name. Raises DataError as ``publish_part``."""

    def publish_file(self, staged: Path, target: Path) -> None:
        """Give a file that a part gains its name."""

    def publish_text(self, text: str, target: Path, *, staging: Path) -> None:
        """Write a small file in one step, in the place of one that is there."""

    def bring_matching(self, pattern: str, *, below: Path) -> list[Path]:
        """The small files right below ``below`` whose names match, readable as the store has them now, in order."""

    def delete(self, path: Path) -> None:
        """Remove a small file, if it is there."""

    def delete_part(self, folder: Path, *, staging: Path) -> None:
        """Remove a part; one that is half gone is no part for any reader."""

    def replace_part(self, staged: Path, target: Path, *, away: Path, sound: Sequence[Path]) -> None:
        """Put a staged part in the place of the broken one, which lies at ``away`` then, ``sound`` files left in place.

        Whenever it is killed, the part is one that is not whole, as broken ones are.
        """

    def live_owners(self) -> list[Owner]:
        """What is, or may be, at work here."""

    def shown(self, path: Path) -> str:
        """The path or address of what ``path`` stands for, for people."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder of this machine, or one that it mounts."""

    folder: Path

    def bring(self, paths: Iterable[Path], *, below: Path) -> None:
        """Nothing to do: it is all here."""

    @contextmanager
    def fetched(self, shard: Path) -> Iterator[Path]:
        """As PartStore: where it lies."""
        yield shard

    def check_sizes(self, layout: Path, records: Sequence[PartRecord]) -> None:
        """As PartStore."""
        for record in records:
            for file in (*record.shards, *record.tables):
                check_stored(part_folder(layout, record.name), file, by_content=False)

    @property
    def keeps_parts_here(self) -> bool:
        """As PartStore."""
        return True

    @contextmanager
    def staging(self, *, alone: bool = False) -> Iterator[Path]:
        """As PartStore."""
        with staging_folder(self.folder, alone=alone) as folder:
            yield folder

    def publish_part(self, staged: Path, target: Path) -> None:
        """As PartStore."""
        publish_folder(staged, target, marker=PART_FILE)

    def publish_version(self, staged: Path, target: Path) -> None:
        """As PartStore."""
        publish_folder(staged, target, marker=MANIFEST_FILE)

    def publish_file(self, staged: Path, target: Path) -> None:
        """As PartStore."""
        publish_file(staged, target)

    def publish_text(self, text: str, target: Path, *, staging: Path) -> None:
        """As PartStore."""
        publish_text(text, target, staging=staging)

    def bring_matching(self, pattern: str, *, below: Path) -> list[Path]:
        """As PartStore."""
        return sorted(below.glob(pattern))

    def delete(self, path: Path) -> None:
        """As PartStore."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: cannot be deleted: {error.strerror}") from error

    def delete_part(self, folder: Path, *, staging: Path) -> None:
        """As PartStore: by one rename."""
        try:
            folder.rename(staging / folder.name)
            shutil.rmtree(staging / folder.name)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be deleted: {error.strerror}") from error

    def replace_part(self, staged: Path, target: Path, *, away: Path, sound: Sequence[Path]) -> None:
        """As PartStore: by two renames."""
        for path in sound:
            with writing(staged / path.parent.name):
                (staged / path.parent.name).mkdir(exist_ok=True)
                shutil.copy2(path, staged / path.parent.name / path.name)
        with writing(away):
            if target.exists():
                away.parent.mkdir(parents=True, exist_ok=True)
                target.rename(away)
        publish_folder(staged, target, marker=PART_FILE)

    def live_owners(self) -> list[Owner]:
        """As PartStore."""
        return live_owners(self.folder)

    def shown(self, path: Path) -> str:
        """As PartStore."""
        return str(path)


def advice_on_damage(store: PartStore) -> str:
    """What to do about a damaged part, where it is kept."""
    return MOVE_AWAY if store.keeps_parts_here else DELETE_OBJECTS


def read_record(folder: Path, store: PartStore) -> PartRecord:
    """The record of a whole part; errors name what the store has. Raises DataError."""
    return read_part(folder, shown=store.shown, advice=advice_on_damage(store))


def check_content(folder: Path, file: StoredFile, store: PartStore) -> None:
    """See that a file of a part is what its record says; errors name what the store has. Raises DataError."""
    check_stored(folder, file, by_content=True, shown=store.shown, advice=advice_on_damage(store))
