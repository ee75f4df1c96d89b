"""Is there room on the disks for what a build is about to write?"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.errors import StorageError
from vlm_catalogs.object_store import is_s3
from vlm_prep.estimate import Estimate
from vlm_prep.source_plan import SourcePlan
from vlm_prep.stores import Stores

NAMED = 5
"""So many sources are named in the message, the largest first."""


def fetched_bytes(plans: Sequence[SourcePlan], *, num_workers: int) -> int:
    """What lies in scratch at once, at most: the largest parts that are fetched from S3, one for each worker."""
    sizes = [part.num_bytes for plan in plans for part in plan.missing if any(is_s3(one.path) for one in part.inputs)]
    return sum(sorted(sizes)[-num_workers:])


def in_work(plans: Sequence[SourcePlan], estimates: Sequence[Estimate], *, num_workers: int) -> list[Estimate]:
    """Of parts that leave this machine when they are whole, those that are here at once, at most."""
    by_name = {one.name: one for one in estimates}
    parts = []
    for plan in plans:
        share = (
            by_name[plan.source.name].bytes / max(1, sum(part.num_bytes for part in plan.missing))
            if plan.missing
            else 0
        )
        parts += [Estimate(name=part.name, bytes=int(share * part.num_bytes), seconds=None) for part in plan.missing]
    return sorted(parts, key=lambda one: one.bytes)[-num_workers:]


def check_writable(config: Config, stores: Stores) -> None:
    """Raise StorageError where a folder that a build writes to cannot be written to, or made."""
    folders = [stores.shards.folder, stores.mix.folder]
    for folder in [*folders, Path(config.mix.scratch)] if config.mix.scratch else folders:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
        if not there.is_dir():
            raise StorageError(f"{folder}: {there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise StorageError(f"{folder}: cannot write here: {there} is read-only, or belongs to somebody else")


def check_room(estimates: Sequence[Estimate], *, shards: Path, scratch: Path, fetched: int) -> None:
    """Raise StorageError when a disk has less room than is needed; the folders need not exist yet."""
    written = sum(one.bytes for one in estimates)
    if _device(shards) == _device(scratch):
        _check(shards, written + fetched, estimates)
        return
    _check(shards, written, estimates)
    _check(scratch, fetched, [])


def _check(folder: Path, num_bytes: int, estimates: Sequence[Estimate]) -> None:
    free = shutil.disk_usage(existing(folder)).free
    if num_bytes <= free:
        return
    largest = sorted(estimates, key=lambda one: -one.bytes)[:NAMED]
    named = ", ".join(f"{one.name} {one.bytes / 1e9:,.3g} GB" for one in largest)
    raise StorageError(
        f"{folder}: about {num_bytes / 1e9:,.3g} GB are to be written here{f' ({named})' if named else ''}, "
        f"{free / 1e9:,.3g} GB are free; make room, use another disk, or see mix.convert = 'needed'"
    )


def _device(folder: Path) -> int:
    return existing(folder).stat().st_dev


def existing(folder: Path) -> Path:
    """The nearest folder that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
