"""Does a compaction hold the rows of its parts? It is derived, so what is wrong is deleted, not mended."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa

from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import PART_FILE, PartRecord, compacted_folder, part_folder, read_part
from vlm_prep.compact_stage import merged_groups, row_groups
from vlm_prep.compaction import TABLES, compaction_name, table_of
from vlm_prep.verify.findings import DAMAGED, EXTRA, MISSING, STALE_INDEX, SWAPPED, UNREADABLE, Finding
from vlm_prep.verify.stored_files import check_stored, first_line, hash_of

ADVICE = "delete its folder (or --repair), vlm-prep build-mix makes it anew"


def check_compactions(layout: Path, verified: AbstractSet[Path]) -> Iterator[Finding]:
    """What is wrong with the compactions beside the parts of a source. ``verified``: parts that are here to compare.

    Raises StorageError when the storage fails.
    """
    root = compacted_folder(layout)
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        yield from _check(layout, folder, verified)


def _check(layout: Path, folder: Path, verified: AbstractSet[Path]) -> Iterator[Finding]:
    path = folder / PART_FILE
    if not folder.is_dir():
        yield Finding(problem=EXTRA, path=str(folder), detail="no compaction")
        return
    if not path.is_file():
        yield Finding(problem=MISSING, path=str(path), detail=f"a compaction without it is not whole; {ADVICE}")
        return
    try:
        record = read_part(folder)
        table, hashes = table_of(record), {str(one["name"]): str(one["xxh3_128"]) for one in record.inputs}
    except (DataError, KeyError) as error:
        yield Finding(problem=UNREADABLE, path=str(path), detail=f"{first_line(error)}; {ADVICE}")
        return
    if not record.name == folder.name == compaction_name(table, hashes.values()):
        yield Finding(problem=DAMAGED, path=str(path), detail=f"its name is not the hash of its parts; {ADVICE}")
        return
    if record.dataset != layout.resolve().parent.name:
        yield Finding(problem=SWAPPED, path=str(path), detail=f"a compaction of {record.dataset}; {ADVICE}")
    for other in sorted(folder.iterdir()):
        if other.name not in (PART_FILE, record.tables[0].name):
            yield Finding(problem=EXTRA, path=str(other), detail="no file of a compaction")
    stored = list(check_stored(folder, record.tables[0]))
    yield from stored
    if not stored:
        yield from _check_rows(layout, folder, record, hashes, verified)


def _check_rows(
    layout: Path, folder: Path, record: PartRecord, hashes: dict[str, str], verified: AbstractSet[Path]
) -> Iterator[Finding]:
    table, path = table_of(record), folder / record.tables[0].name
    folders = [part_folder(layout, name) for name in hashes]
    if gone := [one.name for one in folders if not one.is_dir()]:
        detail = f"made of {len(gone)} parts that are gone, such as {gone[0]}; vlm-prep prune deletes it"
        yield Finding(problem=STALE_INDEX, path=str(folder), detail=detail)
    elif verified >= set(folders):
        files = [one / (PART_FILE if table in TABLES else table) for one in folders]
        if changed := [one for one in files if not one.is_file() or hash_of(one) != hashes[_part_of(one, layout)]]:
            detail = f"made of other content than {changed[0]} has; vlm-prep prune deletes it"
            yield Finding(problem=STALE_INDEX, path=str(folder), detail=detail)
        elif not _has_rows_of(path, [one / table for one in folders]):
            yield Finding(problem=STALE_INDEX, path=str(path), detail=f"not the rows of its parts; {ADVICE}")


def _part_of(path: Path, layout: Path) -> str:
    return path.relative_to(layout / "parts").parts[0]


def _has_rows_of(path: Path, parts: list[Path]) -> bool:
    """False, too, where a table cannot be read: that of a part is a finding of its own."""
    try:
        pairs = zip_longest(row_groups(path), merged_groups(parts))
        return all(one is not None and other is not None and one.equals(other) for one, other in pairs)
    except (pa.ArrowException, OSError):
        return False
