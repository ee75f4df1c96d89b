"""Catalogues in the spelling of InternVL and MMPR: a meta.json of ``{name: {root, annotation, repeat_time}}``.

It holds no weights: a dataset's share is its length times repeat_time where every entry says its length, as when all
are put end to end; otherwise all are equal, with a note.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.dataset_name import name_problem
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.source import FileSource


def is_json_catalog(path: Path) -> bool:
    """Is this JSON file an object of entries that name an annotation? A data file is an array or lines."""
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        if not file.read(64).removeprefix(json_text.BYTE_ORDER_MARK).lstrip().startswith(b"{"):
            return False
    entries = _read(path)
    return bool(entries) and all(isinstance(entry, dict) and "annotation" in entry for entry in entries.values())


def read_json_catalog(path: Path, *, named_by: str) -> tuple[list[FileSource], list[str]]:
    """The datasets of a meta.json with their weights, and notes. Raises ConfigError with every problem of the file."""
    if not path.is_file():
        raise ConfigError(f"{named_by}: no catalogue {str(path)!r}; a relative path starts from the working directory")
    entries = _read(path)
    problems = [problem for name, entry in entries.items() for problem in _problems(path, name, entry)]
    if problems:
        raise ConfigError("\n".join(problems))
    notes = [f"{name}: repeat_time 0, so it is left out ({path})" for name in entries if not _repeats(entries[name])]
    used = {name: entry for name, entry in entries.items() if _repeats(entry)}
    has_lengths = all(_is_number(entry.get("length")) and entry["length"] > 0 for entry in used.values())
    if not has_lengths:
        notes.append(f"{path}: not every entry says its length, so all {len(used)} datasets get an equal share")
    weights = {name: entry["length"] * _repeats(entry) if has_lengths else 1.0 for name, entry in used.items()}
    return [_source(path, name, entry, weights[name]) for name, entry in used.items()], notes


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = json_text.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(entries, dict):
        raise ConfigError(f"{path}: expected an object of name: {{root, annotation, repeat_time}}")
    return entries


def _problems(path: Path, name: str, entry: Any) -> Iterator[str]:
    where = f"{path}: {name}"
    if problem := name_problem(name):
        yield f"{where}: {problem}"
    if not isinstance(entry, dict) or not isinstance(entry.get("annotation"), str):
        yield f"{where}: expected an object with root and annotation"
        return
    if not _is_number(entry.get("repeat_time", 1)) or entry.get("repeat_time", 1) < 0:
        yield f"{where}: repeat_time: expected a number >= 0, got {entry['repeat_time']!r}"
    if not isinstance(entry.get("root", ""), str):
        yield f"{where}: root: expected a folder, got {entry['root']!r}"
        return
    for key in ("annotation", "root"):
        if entry.get(key) and _place(path, entry[key]) is None:
            yield f"{where}: {key}: no {entry[key]!r}, neither from the working directory nor beside {path.name}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _repeats(entry: Mapping[str, Any]) -> float:
    return float(entry.get("repeat_time", 1))


def _place(path: Path, name: str) -> str | None:
    """Where a path of the file leads: from the working directory, else from the folder of the file itself."""
    return next((str(place) for place in (Path(name), path.parent / name) if place.exists()), None)


def _source(path: Path, name: str, entry: Mapping[str, Any], weight: float) -> FileSource:
    place = _place(path, entry["annotation"])
    assert place is not None
    return FileSource(
        name=name,
        weight=weight,
        path=place,
        format="auto",
        media_root=_place(path, entry["root"]) if entry.get("root") else None,
        repeat_time=_repeats(entry),
        origin=str(path),
    )
