"""The stage that compacts the index of sources of many parts, once the mix is published: nothing waits for it."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.console import fact, note
from vlm_catalogs.errors import UserError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import PART_FILE, PartRecord, StoredFile, compacted_folder
from vlm_catalogs.manifest import Manifest, PinnedPart
from vlm_catalogs.sample import SHARD_FORMAT
from vlm_prep.compaction import compaction_names, is_sound, pinned_tables
from vlm_prep.mix import PreparedSource
from vlm_prep.row_groups import ROW_GROUP_ROWS, TableFile
from vlm_prep.staging import writing


def compact_missing(prepared: Sequence[PreparedSource], manifest: Manifest, *, staging: Path) -> None:
    """Compact what the mix pins of sources of many parts, where that is not done yet.

    What goes wrong is no error: the mix is whole without it.
    """
    started, num_files = time.monotonic(), 0
    pins = {dataset.name: dataset.parts for dataset in manifest.datasets}
    try:
        for source in prepared:
            num_files += _compact_source(source, pins[source.name], staging)
    except UserError as error:
        note(f"the index is not compacted, questions read its parts one by one: {error}")
    if num_files:
        fact(f"compact: {num_files} tables of many parts, {time.monotonic() - started:.1f} s")


def _compact_source(source: PreparedSource, pins: Sequence[PinnedPart], staging: Path) -> int:
    """How many tables were compacted. Raises DataError or StorageError."""
    store, layout = source.plan.store, source.plan.layout
    names = compaction_names(pins)
    folders = {table: compacted_folder(layout, name) for table, name in names.items()}
    store.bring((folder / PART_FILE for folder in folders.values()), below=compacted_folder(layout))
    num_files = 0
    for table, folder in folders.items():
        if (folder / PART_FILE).is_file() and (not store.keeps_parts_here or is_sound(folder)):
            continue
        if folder.exists() and store.keeps_parts_here:
            store.delete_part(folder, staging=staging)
        staged = staging / names[table]
        record = _record(source, names[table], pinned_tables(pins)[table])
        write_compaction(record, source.tables(table), staged)
        store.publish_part(staged, folder)
        num_files += 1
    return num_files


def _record(source: PreparedSource, name: str, hashes: Sequence[str]) -> PartRecord:
    """What a compaction is made of; the table is still to come."""
    names = [part.name for part in source.plan.parts]
    return PartRecord(
        name=name,
        dataset=source.name,
        shard_format=SHARD_FORMAT,
        inputs=tuple({"name": part, "xxh3_128": one} for part, one in zip(names, hashes, strict=True)),
        num_kept=source.num_kept,
        num_rejected=source.num_rejected,
        shards=(),
        shard_samples=(),
        tables=(),
    )


def write_compaction(record: PartRecord, paths: Sequence[Path], folder: Path) -> None:
    """Write a table of many parts (``paths``) as one file, and last its record. Raises StorageError."""
    path = folder / paths[0].name
    with writing(folder):
        folder.mkdir(parents=True)
        merge_tables(paths, path)
        table = StoredFile(name=path.name, bytes=path.stat().st_size, xxh3_128=file_hash(path))
        (folder / PART_FILE).write_text(replace(record, tables=(table,)).as_json())


def merge_tables(paths: Sequence[Path], target: Path) -> None:
    """Write the rows of tables of one schema, one after the other. Raises StorageError."""
    file = TableFile(target, pq.read_schema(paths[0]))
    try:
        file.write(merged_groups(paths))
        file.close()
    finally:
        file.abandon()


def merged_groups(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of tables of one schema, as row groups of the file that they make."""
    return _in_groups(group for path in paths for group in row_groups(path))


def row_groups(path: Path) -> Iterator[pa.Table]:
    """The row groups of a file."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, use_threads=False)


def _in_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in groups of ROW_GROUP_ROWS, the last one shorter."""
    waiting: list[pa.Table] = []
    written = False
    for table in tables:
        waiting.append(table)
        if sum(one.num_rows for one in waiting) >= ROW_GROUP_ROWS:
            rows = pa.concat_tables(waiting)
            while rows.num_rows >= ROW_GROUP_ROWS:
                yield rows.slice(0, ROW_GROUP_ROWS).combine_chunks()
                written = True
                rows = rows.slice(ROW_GROUP_ROWS)
            waiting = [rows]
    rest = pa.concat_tables(waiting).combine_chunks()
    if rest.num_rows or not written:
        yield rest
