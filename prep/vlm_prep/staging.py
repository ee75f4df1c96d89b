"""Staging and publication (semantics A4): what exists under its own name is whole, whenever the process dies."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.durable import sync_file, sync_folder
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.leftovers import STALE_SECONDS, is_alive, started_at

STAGING = ".staging"
OWNER_FILE = "owner.json"
SAYS_ELSE = (
    "says something else than this build of the same inputs; was it written by another version? "
    "Move the folder away and build again"
)


@dataclass(frozen=True, slots=True)
class Owner:
    """A command that is, or may be, at work in a home of parts."""

    name: str
    """Of its staging folder."""
    is_alone: bool
    """Does it take parts away, so that nothing else may be at work beside it?"""


@contextmanager
def staging_folder(root: Path, *, alone: bool = False, shown: str = "") -> Iterator[Path]:
    """A new folder under ``root/.staging`` that is removed at the end; what dead builds left there is removed first.

    Raises DataError as ``refuse_company``, which gets ``alone``, and StorageError. ``shown``: ``root`` for people.
    """
    remove_stale(root / STAGING)
    folder = root / STAGING / uuid.uuid4().hex
    try:
        folder.mkdir(parents=True)
        pid = os.getpid()
        owner = {"pid": pid, "started": started_at(pid), "host": socket.gethostname()}
        owner |= {"alone": True} if alone else {}
        (folder / OWNER_FILE).write_text(json_text.dumps(owner))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StorageError(f"{root}: cannot write here: {error.strerror}") from error
    try:
        refuse_company(shown or str(root), live_owners(root), folder.name, alone=alone)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_company(place: str, owners: Iterable[Owner], ours: str, *, alone: bool) -> None:
    """Raise DataError where others are at work and one of them, or ``ours``, must be alone.

    Each has said that it is there before it looks, so of two that start at once one at least is refused.
    """
    others = [owner for owner in owners if owner.name != ours and (alone or owner.is_alone)]
    if others:
        names = ", ".join(owner.name for owner in others)
        what = "a prune or a repair" if any(owner.is_alone for owner in others) else "a build"
        raise DataError(f"{place}: {what} is at work here ({names}); nothing was changed, try again when it is done")


def remove_stale(staging: Path) -> None:
    """Remove the folders of builds that are dead on this host, or older than a day."""
    for folder in staging.iterdir() if staging.is_dir() else ():
        if _is_stale(folder):
            shutil.rmtree(folder, ignore_errors=True)


def live_owners(root: Path) -> list[Owner]:
    """What is, or may be, at work under ``root``."""
    staging = root / STAGING
    folders = sorted(folder for folder in (staging.iterdir() if staging.is_dir() else ()) if not _is_stale(folder))
    return [Owner(folder.name, is_alone=_is_alone(folder)) for folder in folders]


def _is_alone(folder: Path) -> bool:
    try:
        return wants_to_be_alone((folder / OWNER_FILE).read_bytes())
    except OSError:
        return False  # it says so before it looks for others


def wants_to_be_alone(owner: bytes) -> bool:
    """Does an owner file say so?"""
    try:
        return json_text.loads(owner).get("alone") is True
    except (ValueError, AttributeError):
        return False


def _is_stale(folder: Path) -> bool:
    """Of this host, the owner's life decides; of another host, or without an owner yet, a day does."""
    try:
        if (is_dead := is_dead_here((folder / OWNER_FILE).read_bytes())) is not None:
            return is_dead
    except OSError:
        pass
    try:
        return time.time() - folder.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False  # gone already


def is_dead_here(owner: bytes) -> bool | None:
    """Is the process that an owner file names dead? None for one of another host, or where it names none."""
    try:
        fields = json_text.loads(owner)
        if fields["host"] != socket.gethostname():
            return None
        pid, started = int(fields["pid"]), fields.get("started")
        return not is_alive(pid) or (started is not None and started_at(pid) not in (None, started))
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Raises StorageError, naming ``target``, where writing it fails: a full disk, a folder that is read-only."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error.strerror or error}") from error


def publish_folder(staged: Path, target: Path, *, marker: str) -> bool:
    """Give a staged folder its name; False when the same folder is there already, and ours was dropped.

    ``marker`` is the file that says what the folder holds. Raises DataError when the folder there says something else,
    and StorageError when the storage fails.
    """
    with writing(target):
        sync_tree(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            try:
                staged.rename(target)
                sync_folder(target.parent)
                return True
            except OSError:
                if not target.exists():
                    raise
        _compare(staged / marker, target / marker)
        shutil.rmtree(staged)
    return False


def _compare(ours: Path, theirs: Path) -> None:
    if not theirs.is_file():
        raise DataError(f"{theirs}: missing, but its folder exists; move that folder away and build again")
    if ours.read_bytes() != theirs.read_bytes():
        raise DataError(f"{theirs}: {SAYS_ELSE}")


def publish_file(staged: Path, target: Path) -> None:
    """Give a staged file its name, in the place of one that is there. Raises StorageError."""
    with writing(target):
        sync_file(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        sync_folder(target.parent)


def publish_text(text: str, target: Path, *, staging: Path) -> None:
    """Write a small file in one step; nothing happens when it says this already. Raises StorageError."""
    with writing(target):
        if target.is_file() and target.read_bytes() == text.encode():
            return
        staged = staging / uuid.uuid4().hex
        staged.write_text(text)
    publish_file(staged, target)


def sync_tree(folder: Path) -> None:
    """Have every file and folder under ``folder`` on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


def refuse_full_disk(folder: Path, num_bytes: int, what: str) -> None:
    """Raise StorageError where ``folder`` has no room for so many bytes."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if num_bytes > free:
        raise StorageError(f"{folder}: {num_bytes / 1e9:,.1f} GB {what}, {free / 1e9:,.1f} GB are free")
