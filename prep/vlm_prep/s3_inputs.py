"""Inputs that lie in S3: what a listing says of them, and a part's tars on the local disk while it is converted."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vlm_catalogs.errors import StorageError
from vlm_catalogs.object_store import ObjectStore, S3Location, StoredObject, is_s3, parse_s3
from vlm_prep.parts import PartInput, PlannedPart


def objects_below(store: ObjectStore, folder: S3Location) -> dict[str, StoredObject]:
    """Key relative to ``folder`` -> object, from one listing. Raises StorageError."""
    prefix = f"{folder.key}/" if folder.key else ""
    listed = store.list(S3Location(bucket=folder.bucket, key=prefix))
    return {one.key.removeprefix(prefix): one for one in listed}


@contextmanager
def fetched_part(part: PlannedPart, credentials_path: str | None, scratch: Path) -> Iterator[PlannedPart]:
    """The part with its inputs on the local disk: those in S3 are copied below ``scratch``, which goes at the end.

    Every copy is of the object that the plan has seen (If-Match). Raises StorageError when there is no room, DataError
    when an object has changed.
    """
    if not any(is_s3(one.path) for one in part.inputs):
        yield part
        return
    scratch.parent.mkdir(parents=True, exist_ok=True)  # on other machines of a cluster it may not be there yet
    _check_room(part, scratch.parent)
    store = ObjectStore(credentials_path)
    try:
        scratch.mkdir()
        inputs = [_fetched(store, one, scratch / f"{number:05d}.tar") for number, one in enumerate(part.inputs)]
        yield replace(part, inputs=tuple(inputs))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetched(store: ObjectStore, one: PartInput, path: Path) -> PartInput:
    try:
        store.download(parse_s3(one.path), path, etag=one.content_id)
    except OSError as error:
        raise StorageError(f"{path}: {one.path} cannot be copied here: {error.strerror}") from error
    return replace(one, path=str(path))


def _check_room(part: PlannedPart, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if part.num_bytes > free:
        raise StorageError(
            f"{folder}: a part of {part.num_bytes / 1e9:,.1f} GB is to be copied here, {free / 1e9:,.1f} GB are free"
        )
