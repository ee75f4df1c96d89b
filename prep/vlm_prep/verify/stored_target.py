"""What lies in S3, read anew for verification: records first, then all of it, part by part, as the disk allows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vlm_catalogs.layout import PART_FILE
from vlm_catalogs.leftovers import remove_leftovers, temporary_name
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.staging import refuse_full_disk
from vlm_prep.verify.findings import Finding
from vlm_prep.verify.targets import Target, copies_for, find_target

READ_SUFFIXES = (".json", ".parquet", ".mds")
"""Of other objects it is enough to know that they are there."""


@contextmanager
def fresh_target(path: str, *, credentials: str | None = None) -> Iterator[Target]:
    """What ``path`` is; copies of what lies in S3 are made anew, in a folder that goes at the end: none is trusted."""
    copies = copies_for(path, credentials=credentials)
    fresh = replace(copies, folder=copies.folder / temporary_name("verify"))
    remove_leftovers(copies.folder)
    try:
        yield find_target(path, copies=fresh)
    finally:
        shutil.rmtree(fresh.folder, ignore_errors=True)


def copy_records(layout: Path, copies: ObjectCopies) -> None:
    """Have what lies beside the parts of a layout here, and their records."""
    if not copies.has_place_for(layout):
        return
    for path in copies.list(layout):
        is_in_part = path.is_relative_to(layout / "parts")
        _copy(path, copies, is_read=path.name == PART_FILE or not is_in_part)


@contextmanager
def whole_part(folder: Path, copies: ObjectCopies) -> Iterator[None]:
    """For as long as this lasts the part is here, shards and all; its index files stay."""
    if not copies.has_place_for(folder):
        yield
        return
    listed = copies.list(folder)
    refuse_full_disk(copies.folder, sum(one.bytes for one in listed.values()), "of a part are to be copied here")
    for path in listed:
        _copy(path, copies, is_read=True)
    yield
    for path in folder.glob("*.mds"):
        path.unlink()


def as_addressed(finding: Finding, target: Target) -> Finding:
    """The finding with addresses in S3 in the place of paths of copies."""
    copies = f"{target.copies.folder}/"
    return replace(finding, path=finding.path.replace(copies, "s3://"), detail=finding.detail.replace(copies, "s3://"))


def _copy(path: Path, copies: ObjectCopies, *, is_read: bool) -> None:
    if is_read and path.suffix in READ_SUFFIXES:
        copies.fetch(copies.location(path), path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
