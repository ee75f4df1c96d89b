"""Which index files does a path mean? Those of a mix, of converted sources, or of a run with the mix that it pinned."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.layout import INDEX_TABLES, PART_FILE, PartRecord, read_part
from vlm_catalogs.manifest import Manifest, read_manifest
from vlm_catalogs.mix_place import bring_parts, bring_version, copies_of, mix_root, pinned_parts
from vlm_catalogs.object_copies import ObjectCopies
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

    def folders(self) -> list[Path]:
        """Every folder that holds a file of it."""
        kept = [folder for folder in (self.mix, self.run) if folder is not None]
        return [*kept, *(part.folder for part in self.parts)]


def find_index(path: str, *, copies: ObjectCopies | None = None) -> IndexFiles:
    """The index files of a mix, a version of it, a shards folder, a CONFIG or a run; ``copies`` as in ``find_target``.

    Raises ConfigError when ``path`` is none of them, DataError for one that is not whole.
    """
    if (Path(path) / RUN_FILE).is_file():
        return _index_of_run(Path(path), copies)
    target = find_target(path, copies=copies)
    copies = target.copies
    if target.mix is not None:
        return _index_of_mix(target.mix, copies)
    parts = (part for layout in target.layouts for part in _whole_parts(layout, copies))
    return IndexFiles(parts=tuple(parts), copies=copies)


def _index_of_mix(mix: Path, copies: ObjectCopies, run: Path | None = None) -> IndexFiles:
    manifest = read_manifest(mix)
    pinned = pinned_parts(mix, manifest, copies)
    bring_parts(pinned, copies, tables=INDEX_TABLES)
    parts = tuple(_part(folder, [pin.lengths]) for folder, pin in pinned)
    return IndexFiles(parts=parts, copies=copies, mix=mix, manifest=manifest, run=run)


def _index_of_run(run: Path, copies: ObjectCopies | None) -> IndexFiles:
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
    return _index_of_mix(mix, copies, run)


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


def _part(folder: Path, lengths: list[str]) -> PartFiles:
    missing = [file for file in (*INDEX_TABLES, *lengths) if not (folder / file).is_file()]
    if missing:
        raise DataError(f"{folder}: without {', '.join(missing)}; vlm-prep verify lists what else is wrong")
    decoded = folder / DECODED_NAME
    return PartFiles(
        folder=folder,
        record=read_part(folder),
        lengths=tuple(folder / file for file in lengths),
        decoded=decoded if decoded.is_file() else None,
    )
