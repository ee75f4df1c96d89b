"""What conversion has to do for one source: where it is stored, which parts it has, which of them are there already."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.layout import PART_FILE, PartRecord, part_folder
from vlm_catalogs.source import FileSource, I4Source, Source
from vlm_prep.i4_inputs import plan_i4, read_wdinfo
from vlm_prep.mended import renamed_if_mended
from vlm_prep.part_store import PartStore, check_content, read_record
from vlm_prep.parts import PlannedPart, layout_hash
from vlm_prep.raw_sample import Limits
from vlm_prep.readers import plan_files, stated_samples
from vlm_prep.source_format import hidden_files, resolve_format, source_root
from vlm_prep.unchanged import Stamp, stamps_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """One source before conversion."""

    source: Source
    file_format: str
    """``i4`` or one of ``source_format.SUFFIXES``."""
    store: PartStore
    """Where its parts are kept."""
    layout: Path
    """``shards/<dataset>/<layout>``."""
    parts: tuple[PlannedPart, ...]
    of_parts: int | None = None
    """How many parts the source has, where only some are taken (``convert = "needed"``)."""
    notes: tuple[str, ...] = ()
    """For people and for the manifest: without paths of this machine."""
    stated_samples: int | None = None
    """How many samples the source says that it has."""
    stated_counts: Mapping[str, int] = field(default_factory=dict)
    """i4: data_list entry -> how many samples wdinfo.json says that it has; the empty name is all of them."""
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    """Its local files as they stood when it was planned."""

    @property
    def num_bytes(self) -> int:
        """Size of the inputs that parts are cut from; media beside JSON files are not counted."""
        return sum(part.num_bytes for part in self.parts)

    @property
    def missing(self) -> tuple[PlannedPart, ...]:
        """The parts that are still to convert."""
        return tuple(part for part in self.parts if not (part_folder(self.layout, part.name) / PART_FILE).is_file())

    @property
    def fingerprint(self) -> str:
        """The version of the source: its format and its parts in order."""
        return joined_hash([self.layout.name, *(part.name for part in self.parts)])

    @property
    def stated_here(self) -> dict[str, int]:
        """What is stated of the parts that are taken; of all only where all are."""
        taken = {one.entry for part in self.parts for one in part.inputs}
        is_whole = self.of_parts is None and taken.issuperset(self.stated_counts.keys() - {""})
        return {
            entry: number for entry, number in self.stated_counts.items() if (entry in taken if entry else is_whole)
        }

    def folders(self) -> list[Path]:
        """The folders of the parts in order."""
        return [part_folder(self.layout, part.name) for part in self.parts]


def plan_source(source: Source, config: Config, store: PartStore) -> SourcePlan:
    """The plan of one source. Raises ConfigError, DataError or StorageError."""
    plan = _plan_i4(source, config, store) if isinstance(source, I4Source) else _plan_files(source, config, store)
    if not plan.parts:
        raise DataError(f"{source.origin}: {source.name}: there is nothing in it; give it weight 0 to leave it out")
    return replace(plan, stamps=stamps_of(plan.parts))


def _plan_i4(source: I4Source, config: Config, store: PartStore) -> SourcePlan:
    options = ["i4", source.text_keys, source.media_keys, source.text_only, config.mix.max_sample_bytes]
    wdinfo = read_wdinfo(source)
    parts, notes = plan_i4(source, allow_missing_tars=config.mix.allow_missing_tars, wdinfo=wdinfo)
    layout = store.folder / source.name / layout_hash(options)
    bring_records(store, layout, parts)
    return SourcePlan(
        source=source,
        file_format="i4",
        store=store,
        layout=layout,
        parts=tuple(parts),
        notes=tuple(notes),
        stated_counts=wdinfo.stated_counts,
    )


def _plan_files(source: FileSource, config: Config, store: PartStore) -> SourcePlan:
    file_format = resolve_format(source)
    limits = Limits.from_settings(config.mix)
    options: list[object] = [file_format, _media_root(source), limits.max_sample_bytes]
    options += [sorted(source.columns.items())] if source.columns else []
    options += [["fetch_media", sorted(limits.fetch_private_hosts)]] if limits.fetch_media else []
    layout = store.folder / source.name / layout_hash(options)
    cut = plan_files(source, file_format)
    bring_records(store, layout, cut)
    parts = tuple(
        renamed_if_mended(source, file_format, part, folder=part_folder(layout, part.name), limits=limits)
        for part in cut
    )
    bring_records(store, layout, [part for part in parts if part not in cut])
    notes = [f"{source.name}: its files are read as {file_format}"] if source.format == "auto" else []
    if hidden := hidden_files(source, file_format):
        shown = hidden[0].relative_to(source_root(source))
        notes.append(f"{source.name}: {len(hidden):,} hidden files are left out, such as {shown}")
    return SourcePlan(
        source=source,
        file_format=file_format,
        store=store,
        layout=layout,
        parts=parts,
        notes=tuple(notes),
        stated_samples=stated_samples(source, file_format),
    )


def bring_records(store: PartStore, layout: Path, parts: Sequence[PlannedPart]) -> None:
    """Have the records and samples of the parts that are there already readable."""
    names = (PART_FILE, "samples.parquet")
    store.bring((part_folder(layout, part.name) / name for part in parts for name in names), below=layout / "parts")


def _media_root(source: FileSource) -> str | None:
    """The media root as seen from the source, so that moving both changes nothing."""
    return os.path.relpath(source.media_root, source_root(source)) if source.media_root is not None else None


def record_notes(plan: SourcePlan, records: Sequence[PartRecord]) -> list[str]:
    """What to say of a source once it is converted: other numbers than it states, members out of order."""
    notes = []
    found = sum(record.num_kept + record.num_rejected for record in records)
    if plan.stated_samples not in (None, found):
        stated = f"{plan.stated_samples:,}"
        notes.append(f"{plan.source.name}: meta.json says total_items {stated}, there are {found:,} samples")
    if displaced := sum(record.num_out_of_order for record in records):
        notes.append(
            f"{plan.source.name}: {displaced:,} samples have members out of order: their key tars list samples in "
            "different orders. They are matched by name here; loaders that read tars in lockstep pair them wrongly"
        )
    return notes


def read_parts(plan: SourcePlan) -> list[PartRecord]:
    """The records of all parts, in order. Raises DataError when one is damaged.

    Its files are judged by their sizes, and samples.parquet, which the selection is made from, by its content.
    """
    store, folders = plan.store, plan.folders()
    names = (PART_FILE, "samples.parquet", "media.parquet")
    store.bring((folder / name for folder in folders for name in names), below=plan.layout / "parts")
    records = [read_record(folder, store) for folder in folders]
    store.check_sizes(plan.layout, records)
    for folder, record in zip(folders, records, strict=True):
        for file in record.tables:
            if file.name == "samples.parquet":
                check_content(folder, file, store)
    return records
