"""Catalogues of normal datasets: TOML files of [[source]] tables, which may name further catalogues.

[[source]]
name = "docs"                 # its folder under shards/
path = "data/docs"            # a file or a folder, from the working directory
weight = 2.0                  # relative to the others in this file; 0 leaves it out
# format = "auto", media_root = "data/images", repeat_time = 1.0, columns = {messages = "chat", images = "pictures"}

[[source]]
catalog = "more.toml"         # its weights are brought to a sum of 1 and multiplied by this one
weight = 1.0                  # a meta.json of MMPR's spelling is a catalogue too
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vlm_catalogs.config.loader import field_types
from vlm_catalogs.config.problems import Problems
from vlm_catalogs.config.sections import MixSource
from vlm_catalogs.config.toml_file import read_toml
from vlm_catalogs.config.values import Mismatch, fit, shown
from vlm_catalogs.dataset_name import name_problem
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.json_catalog import read_json_catalog
from vlm_catalogs.object_store import is_s3
from vlm_catalogs.source import FileSource

COLUMNS = ("messages", "conversations", "images", "image", "videos", "video", "id")
"""What ``columns`` can map: the names that readers look for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDatasets:
    """Normal datasets with their weights, and what the user should know about them."""

    sources: tuple[FileSource, ...]
    notes: tuple[str, ...] = ()


def read_catalog(path: Path, *, weight: float = 1.0, named_by: str, outer: tuple[Path, ...] = ()) -> FileDatasets:
    """The datasets of a catalogue of either spelling, weights normalised and multiplied. Raises ConfigError."""
    if path.suffix != ".json":
        return read_toml_catalog(path, weight=weight, named_by=named_by, outer=outer)
    sources, notes = read_json_catalog(path, named_by=named_by)
    return FileDatasets(sources=_scaled(sources, path, weight=weight), notes=tuple(notes))


def read_toml_catalog(path: Path, *, weight: float = 1.0, named_by: str, outer: tuple[Path, ...] = ()) -> FileDatasets:
    """The datasets of a catalogue, their weights normalised and multiplied by ``weight``.

    ``named_by`` is the place that names the file, ``outer`` the catalogues around it.
    Raises ConfigError with everything that is wrong in a file, and for catalogues that name each other.
    """
    if not path.is_file():
        raise ConfigError(f"{named_by}: no catalogue {str(path)!r}; a relative path starts from the working directory")
    if path.resolve() in outer:
        circle = " -> ".join(one.name for one in (*outer[outer.index(path.resolve()) :], path))
        raise ConfigError(f"{named_by}: catalogues name each other: {circle}")
    datasets = expand_sources(_read_tables(path), str(path), outer=(*outer, path.resolve()))
    return replace(datasets, sources=_scaled(datasets.sources, path, weight=weight))


def _scaled(sources: Sequence[FileSource], path: Path, *, weight: float) -> tuple[FileSource, ...]:
    """The sources with weights that add up to ``weight``."""
    if not sources:
        raise ConfigError(f"{path}: no dataset with a weight above 0")
    total = sum(source.weight for source in sources)
    if not math.isfinite(total):
        raise ConfigError(f"{path}: the weights are too large to be added up; scale them down")
    return tuple(replace(source, weight=weight * source.weight / total) for source in sources)


def expand_sources(entries: Iterable[MixSource], file: str, *, outer: tuple[Path, ...] = ()) -> FileDatasets:
    """The datasets of source tables, in order, catalogues among them read; a weight of 0 leaves one out, with a note.

    Raises ConfigError with every problem of the tables.
    """
    sources: list[FileSource] = []
    notes: list[str] = []
    problems: list[str] = []
    for entry in entries:
        try:
            found = _expand(entry, f"{file}:{entry.line}" if entry.line else "--set", outer)
        except ConfigError as error:
            problems.append(str(error))
        else:
            sources.extend(found.sources)
            notes.extend(found.notes)
    if problems:
        raise ConfigError("\n".join(problems))
    return FileDatasets(sources=tuple(sources), notes=tuple(notes))


def _expand(entry: MixSource, where: str, outer: tuple[Path, ...]) -> FileDatasets:
    if entry.weight == 0:
        return FileDatasets(
            sources=(), notes=(f"{entry.catalog or entry.name}: weight 0, so it is left out ({where})",)
        )
    if entry.catalog is not None:
        return read_catalog(Path(entry.catalog), weight=entry.weight, named_by=where, outer=outer)
    if problem := name_problem(entry.name):
        raise ConfigError(f"{where}: {problem}")
    _check_exists(entry, where)
    _check_columns(entry, where)
    source = FileSource(
        name=entry.name,
        weight=entry.weight,
        path=entry.path,
        format=entry.format,
        media_root=entry.media_root,
        repeat_time=entry.repeat_time,
        columns=dict(entry.columns or {}),
        credentials_path=entry.s3_credentials_path,
        origin=where,
    )
    return FileDatasets(sources=(source,))


def _check_exists(entry: MixSource, where: str) -> None:
    if not is_s3(entry.path) and not Path(entry.path).exists():
        raise ConfigError(
            f"{where}: {entry.name}: no file or folder {entry.path!r}; "
            "a relative path starts from the working directory"
        )
    if entry.media_root is not None and not is_s3(entry.media_root) and not Path(entry.media_root).is_dir():
        raise ConfigError(f"{where}: {entry.name}: media_root: no folder {entry.media_root!r}")


def _check_columns(entry: MixSource, where: str) -> None:
    for name in entry.columns or {}:
        if name not in COLUMNS:
            raise ConfigError(
                f"{where}: {entry.name}: columns: unknown name {name!r}{_suggestion(name, COLUMNS, 'it')}; "
                f'such as columns = {{messages = "chat"}}'
            )


def _read_tables(path: Path) -> tuple[MixSource, ...]:
    """The [[source]] tables of a catalogue. Raises ConfigError with every problem, each with its line."""
    document = read_toml(path)
    problems = Problems(path, document.lines)
    for key in document.table.keys() - {"source"}:
        problems.add((key,), "unknown key; a catalogue has [[source]] tables only")
    tables = document.table.get("source", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.add("source", f"expected [[source]] tables, got {shown(tables)}")
        tables = []
    entries = [_read_table(table, ("source", number), problems) for number, table in enumerate(tables)]
    problems.raise_all()
    return tuple(entries)


def _read_table(table: Mapping[str, Any], keys: tuple[str | int, ...], problems: Problems) -> MixSource:
    hints = field_types(MixSource)
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in hints:
            problems.add((*keys, name), f"unknown key{_suggestion(name, hints)}")
            continue
        try:
            values[name] = fit(hints[name], value)
        except Mismatch as error:
            problems.add((*keys, name), f"expected {error}, got {shown(value)}")
    _check_shape(table, keys, problems)
    return MixSource(**values, line=problems.line(keys))


def _suggestion(name: str, known: Iterable[str], whole: str = "a source") -> str:
    known = list(known)
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; {whole} has {', '.join(known)}"


def _check_shape(table: Mapping[str, Any], keys: tuple[str | int, ...], problems: Problems) -> None:
    """A table is a dataset with a name and a path, or a catalogue with a weight at most."""
    extra = [name for name in table if name not in ("catalog", "weight")]
    missing = [name for name in ("name", "path") if not table.get(name)]
    if "catalog" in table and extra:
        problems.add(keys, f"expected catalog and weight only, got {', '.join(extra)} too")
    elif "catalog" not in table and missing:
        problems.add(keys, f"{' and '.join(missing)} missing; a source has a name and a path, or a catalog")
