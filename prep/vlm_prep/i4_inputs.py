"""The tars of an i4 source, from its wdinfo.json: which ones there are, how large, with which content."""

import errno
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.source import I4Source
from vlm_prep.content_ids import file_content_id
from vlm_prep.parts import PartInput, PlannedPart, cut_tars, plan_part

SPLIT = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wdinfo:
    """What wdinfo.json says, with local paths."""

    path: Path
    root: Path
    data_list: tuple[str, ...]


def plan_i4(source: I4Source, *, allow_missing_tars: bool) -> tuple[list[PlannedPart], list[str]]:
    """The parts of an i4 source in order, and notes for people.

    Raises ConfigError, DataError or StorageError when wdinfo.json or a tar is missing or wrong.
    """
    wdinfo = read_wdinfo(source)
    entries = {entry: list(_tars_of(source, wdinfo, entry)) for entry in wdinfo.data_list}
    missing = {name: path for tars in entries.values() for _, name, path in tars if not _is_there(path)}
    if missing and not allow_missing_tars:
        raise DataError(_missing_message(source, wdinfo, missing))
    whole = {entry: tars for entry, tars in entries.items() if not any(name in missing for _, name, _ in tars)}
    inputs = {entry: [_tar_input(entry, *tar) for tar in tars] for entry, tars in whole.items()}
    sizes = [(entry, sum(tar.bytes for tar in tars)) for entry, tars in inputs.items()]
    parts = [plan_part([tar for entry in run for tar in inputs[entry]]) for run in cut_tars(sizes)]
    left_out = len(entries) - len(whole)
    note = f"{source.name}: {left_out} of {len(entries)} data_list entries lack a tar and are left out"
    return parts, [note] if left_out else []


def read_wdinfo(source: I4Source) -> Wdinfo:
    """The wdinfo of a source's train split. Raises ConfigError or DataError."""
    path = _local_path(source, source.wdinfo[SPLIT])
    if not path.is_file():
        raise DataError(
            f"{path}: no wdinfo.json here ({source.name}, named at {source.origin}); is [mix] i4_root right?"
        )
    try:
        fields = json_text.loads(path.read_bytes())
        entries = tuple(_flat(fields["data_list"]))
        root = _local_path(source, fields["root"])
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a wdinfo.json with root and data_list: {error!r}") from error
    bad = [entry for entry in entries if entry.startswith("/") or ".." in Path(entry).parts]
    if bad:
        raise DataError(f"{path}: data_list entry {bad[0]!r} leads out of the root")
    times = Counter(posixpath.normpath(entry) for entry in entries)
    twice = [entry for entry, number in times.items() if number > 1]
    if twice:
        raise DataError(f"{path}: data_list names {twice[0]!r} more than once; list each tar once")
    return Wdinfo(path=path, root=root, data_list=entries)


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


def _local_path(source: I4Source, key: str) -> Path:
    """Where a key of the bucket lies: under the mirror, or as it is when it is an absolute path that exists."""
    if key.startswith("s3://"):
        key = key.removeprefix("s3://").partition("/")[2]
    if key.startswith("/") and (Path(key).exists() or source.local_root is None):
        return Path(key)
    if source.local_root is None:
        message = "reading i4 from S3 is not built yet; mirror the bucket and name it with [mix] i4_root"
        raise ConfigError(f"{source.origin}: {source.name}: {message}")
    return Path(source.local_root) / key.lstrip("/")


def _tars_of(source: I4Source, wdinfo: Wdinfo, entry: str) -> Iterator[tuple[str, str, Path]]:
    """The (data key, name relative to the root, path) of each tar of one data_list entry."""
    keys = source.text_keys if source.text_only else source.text_keys + source.media_keys
    for key in dict.fromkeys(keys):
        yield key, f"{key}/{entry}", wdinfo.root / key / entry


def _is_there(path: Path) -> bool:
    """Is there a tar? Raises StorageError when the storage cannot say."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def _tar_input(entry: str, key: str, name: str, path: Path) -> PartInput:
    size, content_id = file_content_id(path)
    return PartInput(name=name, path=str(path), bytes=size, content_id=content_id, entry=entry, key=key)


def _missing_message(source: I4Source, wdinfo: Wdinfo, missing: dict[str, Path]) -> str:
    shown = "\n".join(f"  {path}" for path in list(missing.values())[:10])
    more = f"\n  ... and {len(missing) - 10} more" if len(missing) > 10 else ""
    return (
        f"{wdinfo.path}: {len(missing)} tars of {source.name} are not there:\n{shown}{more}\n"
        "  put them in place, or leave them out with [mix] allow_missing_tars = true"
    )
