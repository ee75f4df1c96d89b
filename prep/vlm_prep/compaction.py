"""One index table of many parts as one file (semantics A11): thousands of small files cost DuckDB much more to open.

A compaction is ``compacted/<name>`` beside the parts: the table, and a part.json that lists what it was made of. It is
derived: nothing pins it, everything can be read without it. Its name is a hash of the table's name and of what a mix
pins of it part by part, so who knows the parts knows which file stands for them, and none can be out of date.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import file_hash, joined_hash
from vlm_catalogs.layout import PART_FILE, PartRecord, check_stored, compacted_folder, part_folder, read_part
from vlm_catalogs.manifest import PinnedPart
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.fact_files import DECODED_NAMES

TABLES = ("samples.parquet", "media.parquet")
"""Those that part.json records, but for the texts: they are most of an index, and one pass over them is never cheap."""
FEWEST_PARTS = 64
"""A source of fewer has no compaction: it would save some hundredths of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """One file that stands for the same table of several parts."""

    path: Path
    table: str
    """The path of the table in each of them, such as ``samples.parquet``."""
    parts: frozenset[Path]
    """Their folders."""


def pinned_tables(pins: Sequence[PinnedPart]) -> dict[str, list[str]]:
    """Table -> what a mix pins of it, part by part; the tables that can be compacted."""
    found = {name: [pin.part_json_xxh3_128 for pin in pins] for name in TABLES}
    if len({pin.lengths for pin in pins}) == 1:
        found[pins[0].lengths] = [pin.lengths_xxh3_128 for pin in pins]
    decoded = {pin.decoded for pin in pins}
    hashes = [pin.decoded_xxh3_128 for pin in pins if pin.decoded_xxh3_128 is not None]
    if len(decoded) == 1 and (name := decoded.pop()) is not None and len(hashes) == len(pins):
        found[name] = hashes
    return found


def compaction_name(table: str, hashes: Iterable[str]) -> str:
    """The folder of a compaction. ``hashes``: what a mix pins of the table, part by part."""
    return joined_hash([table, *hashes])


def compaction_names(pins: Sequence[PinnedPart]) -> dict[str, str]:
    """Table -> the folder in which its compaction is, or would be."""
    if len(pins) < FEWEST_PARTS:
        return {}
    return {table: compaction_name(table, hashes) for table, hashes in pinned_tables(pins).items()}


def table_of(record: PartRecord) -> str:
    """The path in a part of the table that a compaction is of. Raises DataError for a record of something else."""
    if len(record.tables) != 1 or record.shards:
        raise DataError(f"{record.name}: not the record of a compaction")
    name = record.tables[0].name
    return {Path(table).name: table for table in (*TABLES, *DECODED_NAMES)}.get(name, f"lengths/{name}")


def compacted_of_pins(layout: Path, pins: Sequence[PinnedPart], copies: ObjectCopies) -> list[Compacted]:
    """The compactions of exactly the parts that a mix pins of a source; of those in S3 copies are here then.

    Raises StorageError, and DataError for an object that is damaged.
    """
    names = compaction_names(pins)
    folders = {table: compacted_folder(layout, name) for table, name in names.items()}
    if copies.has_place_for(layout):
        copies.bring((folder / PART_FILE for folder in folders.values()), below=compacted_folder(layout))
    whole = {table: folder for table, folder in folders.items() if (folder / PART_FILE).is_file()}
    if copies.has_place_for(layout):
        copies.bring_pinned(
            (folder / file.name, file.xxh3_128) for folder in whole.values() for file in read_part(folder).tables
        )
    parts = frozenset(part_folder(layout, pin.name) for pin in pins)
    return [
        Compacted(path=folder / Path(table).name, table=table, parts=parts)
        for table, folder in whole.items()
        if (folder / Path(table).name).is_file()
    ]


def compacted_of_parts(layout: Path, parts: Mapping[str, Path]) -> list[Compacted]:
    """The compactions on this machine of parts that are there (name -> folder), those of most parts first.

    No part stands in two of one table. Raises DataError for a damaged one.
    """
    records = [read_part(path.parent) for path in sorted(compacted_folder(layout).glob(f"*/{PART_FILE}"))]
    hashes: dict[tuple[str, str], str] = {}
    found: list[Compacted] = []
    for record in sorted(records, key=lambda one: (-len(one.inputs), one.name)):
        table = table_of(record)
        folders = frozenset(parts[name] for name in _names(record) if name in parts)
        taken = frozenset[Path]().union(*(one.parts for one in found if one.table == table))
        if len(folders) == len(record.inputs) and not folders & taken and _is_of(record, table, parts, hashes):
            path = compacted_folder(layout, record.name) / record.tables[0].name
            found.append(Compacted(path=path, table=table, parts=folders))
    return found


def compacted_for_selection(layout: Path, table: str, parts: Sequence[Path]) -> Path | None:
    """The compaction of a table of just these parts, if one is here whose content is what its record says."""
    if len(parts) < FEWEST_PARTS or not compacted_folder(layout).is_dir():
        return None
    hashes = [file_hash(part / (PART_FILE if table in TABLES else table)) for part in parts]
    folder = compacted_folder(layout, compaction_name(table, hashes))
    return folder / Path(table).name if (folder / PART_FILE).is_file() and is_sound(folder) else None


def is_sound(folder: Path) -> bool:
    """Does a compaction hold what its record says? What is derived is left alone, or made anew, where not."""
    try:
        for file in read_part(folder).tables:
            check_stored(folder, file, by_content=True)
    except DataError:
        return False
    return True


def paths_of(table: str, folders: Iterable[Path], compacted: Sequence[Compacted]) -> Iterator[Path]:
    """The files that hold a table of parts: compactions, then the parts' own where none is."""
    of_table = [one for one in compacted if one.table == table]
    covered = frozenset[Path]().union(*(one.parts for one in of_table))
    yield from (one.path for one in of_table)
    yield from (folder / table for folder in folders if folder not in covered)


def _names(record: PartRecord) -> list[str]:
    return [str(one["name"]) for one in record.inputs]


def _is_of(record: PartRecord, table: str, parts: Mapping[str, Path], hashes: dict[tuple[str, str], str]) -> bool:
    """Was it made of the files that these parts have now? ``hashes`` are kept for the next one."""
    file = PART_FILE if table in TABLES else table
    for one in record.inputs:
        place = (name := str(one["name"]), file)
        if place not in hashes:
            path = parts[name] / file
            hashes[place] = file_hash(path) if path.is_file() else ""
        if hashes[place] != one["xxh3_128"]:
            return False
    return True


def covered_tables(compacted: Collection[Compacted]) -> frozenset[str]:
    """The tables that need not be read part by part."""
    return frozenset(one.table for one in compacted)
