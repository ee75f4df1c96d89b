"""Converted parts that no mix pins any more (semantics A4): listed, and deleted only when asked to."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.layout import part_folder, read_part
from vlm_catalogs.manifest import read_manifest
from vlm_prep.source_files import mds_view
from vlm_prep.staging import live_owners, publish_text, staging_folder
from vlm_prep.verify.targets import find_layouts

Pin = tuple[str, str, str]
"""(dataset, layout, part)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoosePart:
    """A part that no mix pins."""

    dataset: str
    layout: Path
    name: str
    bytes: int

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return part_folder(self.layout, self.name)


def find_loose_parts(shards: Path, mixes: Sequence[Path]) -> list[LoosePart]:
    """The parts under ``shards`` that no version of any mix under ``mixes`` pins.

    Raises ConfigError for a wrong folder, and DataError when a manifest cannot be read: what it pins is not known.
    """
    layouts = find_layouts(shards)
    if not layouts or layouts[0].parent.parent != shards:
        raise ConfigError(f"{shards}: expected a shards folder, with <dataset>/<layout>/parts in it")
    pinned = {pin for folder in mixes for pin in _pins_under(folder)}
    return [
        LoosePart(dataset=dataset, layout=layout, name=folder.name, bytes=_num_bytes(folder))
        for layout in layouts
        for dataset in [layout.resolve().parent.name]
        for folder in sorted((layout / "parts").iterdir())
        if (dataset, layout.resolve().name, folder.name) not in pinned
    ]


def _pins_under(folder: Path) -> Iterable[Pin]:
    """What the mixes under a folder pin. A folder without any is a wrong path: it would leave nothing pinned."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one that holds mixes")
    versions = {path.parent for name in ("manifest.json", "selection.parquet") for path in folder.rglob(name)}
    if not versions:
        raise ConfigError(f"{folder}: no mix here; expected a folder that holds mixes")
    for version in sorted(versions):
        for dataset in read_manifest(version).datasets:
            for part in dataset.parts:
                yield dataset.name, Path(dataset.shards).name, part.name


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def delete_parts(shards: Path, parts: Sequence[LoosePart]) -> None:
    """Delete parts, first what lists them: at any moment all that is left is whole.

    Raises DataError while a build is at work in this folder: its new parts are pinned by nothing yet.
    """
    if owners := live_owners(shards):
        raise DataError(f"{shards}: a build is at work here ({', '.join(owners)}); nothing is deleted, try again later")
    with staging_folder(shards) as staging:
        for layout in dict.fromkeys(part.layout for part in parts):
            _drop_versions(layout, {part.name for part in parts if part.layout == layout}, staging)
        for number, part in enumerate(parts):
            try:
                part.folder.rename(staging / str(number))
                shutil.rmtree(staging / str(number))
            except OSError as error:
                raise StorageError(f"{part.folder}: cannot be deleted: {error.strerror}") from error


def _drop_versions(layout: Path, names: set[str], staging: Path) -> None:
    """Remove the versions of a source that list a part of ``names``; the MDS view shows one that is left, if any."""
    listed = {path: _listed_parts(path) for path in sorted((layout / "sources").glob("*.json"))}
    left = [parts for parts in listed.values() if not names & set(parts)]
    view_path = layout / "index.json"
    if view_path.is_file() and any(name in view_path.read_text() for name in names):
        view = mds_view([read_part(part_folder(layout, name)) for name in left[0]]) if left else {"shards": []}
        if view["shards"]:
            publish_text(json_text.dumps(view), view_path, staging=staging)
        else:
            view_path.unlink()
    for path, parts in listed.items():
        if names & set(parts):
            path.unlink()


def _listed_parts(path: Path) -> list[str]:
    try:
        return [str(name) for name in json_text.loads(path.read_bytes())["parts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a version of a source: {error!r}; run vlm-prep verify") from error
