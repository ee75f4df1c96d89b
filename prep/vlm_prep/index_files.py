"""Which index files does a path mean? Those of a mix, of converted sources, or of a run with the mix that it pinned."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.layout import INDEX_TABLES, PART_FILE, PartRecord, part_folder, read_part
from vlm_catalogs.manifest import Manifest, MixDataset, read_manifest
from vlm_catalogs.mix_place import bring_parts, bring_version, copies_of, layout_folder, mix_root
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.compaction import Compacted, compacted_of_parts, compacted_of_pins, covered_tables, paths_of
from vlm_prep.fact_files import DECODED_NAME
from vlm_prep.verify.targets import RUN_CONFIG, RUN_FILE, find_target

"""Marks the output_dir of a run; it says which version of the mix the run pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFiles:
    """One converted part: its folder, what part.json says, and the lengths that count."""

    folder: Path
    """Of what lies in S3, that of its copies: index files, no shards."""
    record: PartRecord
    lengths: tuple[Path, ...]
    """Those of a part whose lengths are compacted need not be there; nor its other tables that are."""
    decoded: Path | None
    """The decoded facts, where they have been taken."""

    def table(self, name: str) -> Path:
        """One of its index tables, such as ``samples``."""
        return self.folder / f"{name}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFiles:
    """What may be asked about."""

    parts: tuple[PartFiles, ...]
    copies: ObjectCopies
    """Of what lies in S3."""
    mix: Path | None = None
    """A version of a mix."""
    manifest: Manifest | None = None
    run: Path | None = None
    """The output_dir of a run."""
    compacted: tuple[Compacted, ...] = ()
    """Files to read in the place of the tables of many parts."""

    def folders(self) -> list[Path]:
        """Every folder that holds a file of it."""
        kept = [folder for folder in (self.mix, self.run) if folder is not None]
        return [*kept, *(one.path.parent for one in self.compacted), *(part.folder for part in self.parts)]

    def table(self, name: str) -> list[Path]:
        """The files of an index table of all parts, such as ``samples``."""
        return list(paths_of(f"{name}.parquet", (part.folder for part in self.parts), self.compacted))

    def lengths(self) -> list[Path]:
        """The files of lengths of all parts."""
        names = sorted({path.name for part in self.parts for path in part.lengths})
        return [
            path for name in names for path in paths_of(f"lengths/{name}", self._folders_with(name), self.compacted)
        ]

    def decoded(self) -> list[Path] | None:
        """The files of decoded facts, where every part has been decoded."""
        if not all(part.decoded for part in self.parts):
            return None
        return list(paths_of(DECODED_NAME, (part.folder for part in self.parts), self.compacted))

    def _folders_with(self, name: str) -> Iterator[Path]:
        return (part.folder for part in self.parts if any(path.name == name for path in part.lengths))


def find_index(path: str, *, copies: ObjectCopies | None = None, compacted: bool = True) -> IndexFiles:
    """The index files of a mix, a version of it, a shards folder, a CONFIG or a run; ``copies`` as in ``find_target``.

    ``compacted = False`` is for who reads parts one by one, or remembers where they lie.

    Raises ConfigError when ``path`` is none of them, DataError for one that is not whole.
    """
    if (Path(path) / RUN_FILE).is_file():
        return _index_of_run(Path(path), copies, compacted=compacted)
    target = find_target(path, copies=copies)
    copies = target.copies
    if target.mix is not None:
        return _index_of_mix(target.mix, copies, compacted=compacted)
    parts = {layout: tuple(_whole_parts(layout, copies)) for layout in target.layouts}
    return IndexFiles(
        parts=tuple(part for of_layout in parts.values() for part in of_layout),
        copies=copies,
        compacted=tuple(
            one
            for layout, of_layout in parts.items()
            if compacted and not copies.has_place_for(layout)
            for one in compacted_of_parts(layout, {part.folder.name: part.folder for part in of_layout})
        ),
    )


def _index_of_mix(mix: Path, copies: ObjectCopies, *, run: Path | None = None, compacted: bool) -> IndexFiles:
    manifest = read_manifest(mix)
    parts: list[PartFiles] = []
    files: list[Compacted] = []
    for dataset in manifest.datasets:
        layout = layout_folder(mix, dataset, copies)
        found = compacted_of_pins(layout, dataset.parts, copies) if compacted else []
        parts += _pinned_parts(layout, dataset, copies, without=covered_tables(found))
        files += found
    return IndexFiles(parts=tuple(parts), copies=copies, mix=mix, manifest=manifest, run=run, compacted=tuple(files))


def _pinned_parts(
    layout: Path, dataset: MixDataset, copies: ObjectCopies, *, without: Collection[str]
) -> list[PartFiles]:
    pinned = [(part_folder(layout, pin.name), pin) for pin in dataset.parts]
    bring_parts(pinned, copies, tables=INDEX_TABLES, without=without)
    return [_part(folder, [pin.lengths], without=without) for folder, pin in pinned]


def _index_of_run(run: Path, copies: ObjectCopies | None, *, compacted: bool) -> IndexFiles:
    from vlm_catalogs.config import load_config

    try:
        version = str(json_text.loads((run / RUN_FILE).read_bytes())["fingerprint"]["mix"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run / RUN_FILE}: damaged: {error!r}") from error
    config = load_config(run / RUN_CONFIG)
    copies = copies or copies_of(config)
    mix = mix_root(config, copies) / version
    bring_version(mix, copies)
    if not mix.is_dir():
        place = copies.shown(mix)
        raise ConfigError(f"{run}: its mix {place} is not there; run from the folder in which the run was started")
    return _index_of_mix(mix, copies, run=run, compacted=compacted)


def _whole_parts(layout: Path, copies: ObjectCopies) -> Iterator[PartFiles]:
    if copies.has_place_for(layout):
        stored = copies.list(layout / "parts")
        folders = [path.parent for path in sorted(stored) if path.name == PART_FILE]
        index = [path for path in stored if path.name == PART_FILE or path.suffix == ".parquet"]
        copies.bring(index, below=layout / "parts")
    else:
        folders = [path.parent for path in sorted(layout.glob(f"parts/*/{PART_FILE}"))]
    for folder in folders:
        yield _part(folder, [f"lengths/{path.name}" for path in sorted(folder.glob("lengths/*.parquet"))])


def _part(folder: Path, lengths: list[str], *, without: Collection[str] = ()) -> PartFiles:
    """A part of which the tables ``without`` are read elsewhere. Raises DataError where another one is missing."""
    wanted = [file for file in (*INDEX_TABLES, *lengths) if file not in without]
    missing = [file for file in wanted if not (folder / file).is_file()]
    if missing:
        raise DataError(f"{folder}: without {', '.join(missing)}; vlm-prep verify lists what else is wrong")
    decoded = folder / DECODED_NAME
    return PartFiles(
        folder=folder,
        record=read_part(folder),
        lengths=tuple(folder / file for file in lengths),
        decoded=decoded if DECODED_NAME in without or decoded.is_file() else None,
    )
