"""The tars of an i4 source, from its wdinfo.json: which ones there are, how large, with which content."""

import errno
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.object_store import ObjectStore, S3Location, StoredObject, is_s3, parse_s3
from vlm_catalogs.source import I4Source
from vlm_prep.content_ids import file_content_id
from vlm_prep.parts import PartInput, PlannedPart, cut_tars, plan_part
from vlm_prep.s3_inputs import objects_below

Place = Path | S3Location
"""Where something of a bucket lies: in a local mirror, or in the bucket itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wdinfo:
    """What wdinfo.json says, and where it and its tars lie."""

    path: Place
    root: Place
    data_list: tuple[str, ...]
    stated_counts: Mapping[str, int]
    """data_list entry -> how many samples it says that there are; the empty name is all of them. May lack any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tar:
    """One tar of one data_list entry."""

    key: str
    """The data key."""
    name: str
    """Relative to the root."""
    place: Place


def plan_i4(
    source: I4Source, *, allow_missing_tars: bool, wdinfo: Wdinfo | None = None
) -> tuple[list[PlannedPart], list[str]]:
    """The parts of an i4 source in order, and notes for people. ``wdinfo`` where it has been read already.

    Raises ConfigError, DataError or StorageError when wdinfo.json or a tar is missing or wrong.
    """
    wdinfo = wdinfo or read_wdinfo(source)
    entries = {entry: list(_tars_of(source, wdinfo, entry)) for entry in wdinfo.data_list}
    listed = _listings(source, wdinfo)
    missing = {tar.name: tar.place for tars in entries.values() for tar in tars if not _is_there(tar, listed)}
    if missing and not allow_missing_tars:
        raise DataError(_missing_message(source, wdinfo, missing))
    whole = {entry: tars for entry, tars in entries.items() if not any(tar.name in missing for tar in tars)}
    inputs = {entry: [_tar_input(entry, tar, listed) for tar in tars] for entry, tars in whole.items()}
    sizes = [(entry, sum(tar.bytes for tar in tars)) for entry, tars in inputs.items()]
    parts = [plan_part([tar for entry in run for tar in inputs[entry]]) for run in cut_tars(sizes)]
    left_out = len(entries) - len(whole)
    note = f"{source.name}: {left_out} of {len(entries)} data_list entries lack a tar and are left out"
    return parts, [note] if left_out else []


def read_wdinfo(source: I4Source) -> Wdinfo:
    """The wdinfo of a source's split. Raises ConfigError or DataError."""
    path = _place(source, source.wdinfo[source.split])
    try:
        fields = json_text.loads(_wdinfo_bytes(source, path))
        entries = tuple(_flat(fields["data_list"]))
        named_root = fields["root"]
        root = _place(source, named_root)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a wdinfo.json with root and data_list: {error!r}") from error
    _check_names(path, named_root, entries)
    times = Counter(posixpath.normpath(entry) for entry in entries)
    twice = [entry for entry, number in times.items() if number > 1]
    if twice:
        raise DataError(f"{path}: data_list names {twice[0]!r} more than once; list each tar once")
    return Wdinfo(path=path, root=root, data_list=entries, stated_counts=_stated_counts(fields, entries))


def _stated_counts(fields: Mapping[str, Any], entries: Sequence[str]) -> dict[str, int]:
    """What wdinfo.json says of numbers of samples: advisory, so that what is no such number says nothing."""
    counts = fields.get("data_list_key_count")
    if not isinstance(counts, list) or len(counts) != len(entries):
        counts = []
    stated = {**dict(zip(entries, counts, strict=False)), "": fields.get("total_key_count")}
    return {entry: number for entry, number in stated.items() if type(number) is int}


def _check_names(path: Place, root: str, entries: Sequence[str]) -> None:
    """Raise DataError for a name that leads, or may lead, out of where it should lie: wdinfo.json comes from others."""
    if ".." in Path(root).parts:
        raise DataError(f"{path}: root {root!r} has '..' in it; name a folder of the bucket")
    for entry in entries:
        if entry.startswith("/"):
            raise DataError(f"{path}: data_list entry {entry!r} leads out of the root; name it relative to the root")
        if ".." in Path(entry).parts:
            raise DataError(f"{path}: data_list entry {entry!r} has '..' in it, which may lead out of the root")


def _flat(entries: Any) -> Iterator[str]:
    if not isinstance(entries, list):
        raise TypeError(f"data_list is a {type(entries).__name__}, expected a list of tar paths")
    for entry in entries:
        if isinstance(entry, list):
            yield from _flat(entry)
        elif isinstance(entry, str):
            yield entry
        else:
            raise TypeError(f"data_list holds a {type(entry).__name__}, expected tar paths")


def _place(source: I4Source, key: str) -> Place:
    """Where a key of the bucket lies: as it is when it is an absolute path that exists, else in mirror or bucket."""
    if key.startswith("/") and Path(key).exists():
        return Path(key)
    bucket = source.bucket
    if is_s3(key):
        bucket, key = parse_s3(key).bucket, parse_s3(key).key
    if source.local_root is not None:
        return Path(source.local_root) / key.lstrip("/")
    return S3Location(bucket=bucket, key=key.strip("/"))


def _wdinfo_bytes(source: I4Source, place: Place) -> bytes:
    """Raises DataError where there is none, OSError or StorageError where it cannot be read."""
    if isinstance(place, S3Location):
        return ObjectStore(source.credentials_path).read(place)
    if not place.is_file():
        raise DataError(
            f"{place}: no wdinfo.json here ({source.name}, named at {source.origin}); is [mix] i4_root right?"
        )
    return place.read_bytes()


def _keys(source: I4Source) -> list[str]:
    """The data keys, each once."""
    return list(dict.fromkeys(source.text_keys if source.text_only else source.text_keys + source.media_keys))


def _tars_of(source: I4Source, wdinfo: Wdinfo, entry: str) -> Iterator[Tar]:
    """Each tar of one data_list entry."""
    for key in _keys(source):
        yield Tar(key=key, name=f"{key}/{entry}", place=wdinfo.root / key / entry)


def _listings(source: I4Source, wdinfo: Wdinfo) -> Mapping[str, StoredObject]:
    """Name relative to the root -> object, from one listing for each data key; empty for a mirror."""
    if not isinstance(wdinfo.root, S3Location):
        return {}
    store = ObjectStore(source.credentials_path)
    return {
        f"{key}/{name}": one for key in _keys(source) for name, one in objects_below(store, wdinfo.root / key).items()
    }


def _is_there(tar: Tar, listed: Mapping[str, StoredObject]) -> bool:
    """Is there a tar? Raises StorageError when the storage cannot say."""
    path = tar.place
    if isinstance(path, S3Location):
        return tar.name in listed
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def _tar_input(entry: str, tar: Tar, listed: Mapping[str, StoredObject]) -> PartInput:
    if isinstance(tar.place, S3Location):
        size, content_id = listed[tar.name].bytes, listed[tar.name].etag
    else:
        size, content_id = file_content_id(tar.place)
    return PartInput(name=tar.name, path=str(tar.place), bytes=size, content_id=content_id, entry=entry, key=tar.key)


def _missing_message(source: I4Source, wdinfo: Wdinfo, missing: Mapping[str, Place]) -> str:
    shown = "\n".join(f"  {path}" for path in list(missing.values())[:10])
    more = f"\n  ... and {len(missing) - 10} more" if len(missing) > 10 else ""
    return (
        f"{wdinfo.path}: {len(missing)} tars of {source.name} are not there:\n{shown}{more}\n"
        "  put them in place, or leave them out with [mix] allow_missing_tars = true"
    )
