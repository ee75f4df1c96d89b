"""Converted parts that no mix pins any more, and compactions of such (semantics A4): deleted only when asked to."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.layout import COMPACTED, PART_FILE, part_folder, read_part
from vlm_catalogs.manifest import MANIFEST_FILE, SELECTION_FILE, read_manifest
from vlm_catalogs.mix_place import local_path
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.compaction import compaction_name, pinned_tables
from vlm_prep.part_store import PartStore
from vlm_prep.source_files import mds_view
from vlm_prep.verify.targets import find_layouts, layouts_in_store

Pin = tuple[str, str, str, str]
"""(dataset, layout, kind, name)"""
PARTS = "parts"
KINDS = (COMPACTED, PARTS)
"""Folders of a layout; what is made of parts goes before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoosePart:
    """A part that no mix pins, or a compaction of other parts than a mix pins."""

    dataset: str
    layout: Path
    kind: str
    """One of KINDS."""
    name: str
    bytes: int

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.layout / self.kind / self.name


def find_loose_parts(store: PartStore, mixes: Sequence[str], *, copies: ObjectCopies) -> list[LoosePart]:
    """The parts of a home that no version of any mix under ``mixes`` pins; ``copies`` are of what lies in S3.

    Raises ConfigError for a wrong folder, and DataError when a manifest cannot be read: what it pins is not known.
    """
    shards = store.folder
    is_remote = copies.has_place_for(shards)
    layouts = layouts_in_store(shards, copies) if is_remote else find_layouts(shards)
    if not layouts or layouts[0].parent.parent != shards:
        raise ConfigError(f"{store.shown(shards)}: expected a shards folder, with <dataset>/<layout>/parts in it")
    pinned = {pin for place in mixes for pin in _pins_under(place, copies)}
    return [
        LoosePart(dataset=dataset, layout=layout, kind=kind, name=name, bytes=num_bytes)
        for layout in layouts
        for dataset in [layout.resolve().parent.name]
        for kind in KINDS
        for name, num_bytes in sorted(_sizes(layout / kind, copies).items())
        if (dataset, layout.resolve().name, kind, name) not in pinned
    ]


def _sizes(parts: Path, copies: ObjectCopies) -> Mapping[str, int]:
    """Part -> bytes of its files, whole or not."""
    sizes: Counter[str] = Counter()
    if copies.has_place_for(parts):
        for path, found in copies.list(parts).items():
            sizes[path.relative_to(parts).parts[0]] += found.bytes
        return sizes
    there = parts.iterdir() if parts.is_dir() else ()
    sizes.update({folder.name: 0 for folder in there if folder.is_dir()})  # a file is no part, nor ours
    for name in sizes:
        sizes[name] = sum(path.stat().st_size for path in (parts / name).rglob("*") if path.is_file())
    return sizes


def _pins_under(place: str, copies: ObjectCopies) -> Iterable[Pin]:
    """What the mixes under a folder pin. A folder without any is a wrong path: it would leave nothing pinned."""
    folder = local_path(place, copies)
    if copies.has_place_for(folder):
        paths: Iterable[Path] = copies.list(folder)
    else:
        if not folder.is_dir():
            raise ConfigError(f"{place}: no such folder; expected one that holds mixes")
        paths = folder.rglob("*")
    versions = sorted({path.parent for path in paths if path.name in (MANIFEST_FILE, SELECTION_FILE)})
    if not versions:
        raise ConfigError(f"{place}: no mix here; expected a folder that holds mixes")
    if copies.has_place_for(folder):
        copies.bring((version / MANIFEST_FILE for version in versions), below=folder)
    for version in versions:
        for dataset in read_manifest(version).datasets:
            layout = Path(dataset.shards).name
            for part in dataset.parts:
                yield dataset.name, layout, PARTS, part.name
            for table, hashes in pinned_tables(dataset.parts).items():
                yield dataset.name, layout, COMPACTED, compaction_name(table, hashes)


def delete_parts(
    store: PartStore, parts: Sequence[LoosePart], mixes: Sequence[str], *, copies: ObjectCopies
) -> list[LoosePart]:
    """Delete those of ``parts`` that no mix pins by now, what lists them first: at any moment what is left is whole.

    Which these are is asked once more when no build is at work: one may have published a mix since they were listed.
    Raises DataError while a build is at work in this home: its new parts are pinned by nothing yet. One that starts
    meanwhile is refused.
    """
    listed = {part.folder for part in parts}
    with store.staging(alone=True) as staging:
        now = find_loose_parts(store, mixes, copies=copies) if listed else []
        loose = [part for part in now if part.folder in listed]
        for layout in dict.fromkeys(part.layout for part in loose):
            of_layout = [part for part in loose if part.layout == layout]
            for kind in KINDS:
                of_kind = [part for part in of_layout if part.kind == kind]
                if kind == PARTS and of_kind:
                    _drop_versions(store, layout, {part.name for part in of_kind}, staging)
                for part in of_kind:
                    store.delete_part(part.folder, staging=staging)
    return loose


def _drop_versions(store: PartStore, layout: Path, names: set[str], staging: Path) -> None:
    """Remove the versions of a source that list a part of ``names``; the MDS view shows one that is left, if any."""
    view_path = layout / "index.json"
    versions = store.bring_matching("*.json", below=layout / "sources")
    store.bring([view_path], below=layout)
    listed = {path: _listed_parts(path) for path in versions}
    left = [parts for parts in listed.values() if not names & set(parts)]
    if view_path.is_file() and any(name in view_path.read_text() for name in names):
        folders = [part_folder(layout, name) for name in left[0]] if left else []
        store.bring((folder / PART_FILE for folder in folders), below=layout / "parts")
        view = mds_view([read_part(folder) for folder in folders])
        if view["shards"]:
            store.publish_text(json_text.dumps(view), view_path, staging=staging)
        else:
            store.delete(view_path)
    for path, parts in listed.items():
        if names & set(parts):
            store.delete(path)


def _listed_parts(path: Path) -> list[str]:
    try:
        return [str(name) for name in json_text.loads(path.read_bytes())["parts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a version of a source: {error!r}; run vlm-prep verify") from error
