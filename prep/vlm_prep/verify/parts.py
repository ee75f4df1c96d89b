"""One part: its record, its files, its tables, its samples, its lengths. Runs in worker processes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.layout import PART_FILE, PartRecord, read_part
from vlm_catalogs.manifest import PinnedPart
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.tables import DECODED, LENGTHS, MEDIA, SAMPLES, TEXTS
from vlm_prep.fact_files import COPIED, DECODED_NAME, DECODED_NAMES
from vlm_prep.verify.findings import (
    DAMAGED,
    EXTRA,
    MISSING,
    OTHER_PIN,
    STALE_INDEX,
    SWAPPED,
    UNREADABLE,
    WRONG_COUNT,
    Finding,
    first_of,
)
from vlm_prep.verify.samples import check_samples
from vlm_prep.verify.stored_files import check_pinned, check_schema, check_stored, first_line
from vlm_prep.verify.stored_target import whole_part

SCHEMAS = {"samples.parquet": SAMPLES, "media.parquet": MEDIA, "texts.parquet": TEXTS}
ADDED_LATER = ("lengths", "facts")
"""Folders that a whole part may gain files in (semantics A1)."""
LENGTHS_NAME = re.compile(r"lengths/[0-9a-f]{32}\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """One part to verify; crosses to worker processes."""

    folder: Path
    dataset: str
    copies: ObjectCopies
    """Of parts in S3."""
    pin: PinnedPart | None = None
    """What a mix says of it; None when the part is looked at by itself."""


def check_part(task: PartTask) -> list[Finding]:
    """What is wrong with one part. Raises StorageError when the storage fails."""
    with whole_part(task.folder, task.copies):
        return _check_part(task)


def _check_part(task: PartTask) -> list[Finding]:
    folder, path = task.folder, task.folder / PART_FILE
    if not path.is_file():
        return [Finding(problem=MISSING, path=str(path), detail="a part without it is not whole")]
    try:
        record = read_part(folder)
    except DataError as error:
        return [Finding(problem=UNREADABLE, path=str(path), detail=str(error).removeprefix(f"{path}: "))]
    findings = [*_check_record(task, record), *_check_extra(folder, record)]
    findings += [finding for file in record.shards for finding in check_stored(folder, file)]
    tables = [finding for file in record.tables for finding in check_stored(folder, file)]
    tables += [finding for name, schema in SCHEMAS.items() for finding in check_schema(folder / name, schema)]
    return [*findings, *tables] if tables else [*findings, *_check_contents(task, record)]


def _check_record(task: PartTask, record: PartRecord) -> Iterator[Finding]:
    path = task.folder / PART_FILE
    if record.name != task.folder.name:
        yield Finding(problem=SWAPPED, path=str(path), detail=f"this is the part {record.name}")
    if record.dataset != task.dataset:
        detail = f"a part of {record.dataset}, it lies under {task.dataset}"
        yield Finding(problem=SWAPPED, path=str(path), detail=detail)
    if len(record.shards) != len(record.shard_samples) or sum(record.shard_samples) != record.num_kept:
        detail = f"{record.num_kept:,} kept samples, {sum(record.shard_samples):,} in {len(record.shards)} shards"
        yield Finding(problem=WRONG_COUNT, path=str(path), detail=detail)
    if task.pin is not None:
        yield from check_pinned(path, task.pin.part_json_xxh3_128, problem=OTHER_PIN)
        if task.pin.num_samples != record.num_kept:
            detail = f"{record.num_kept:,} kept samples, the mix says {task.pin.num_samples:,}"
            yield Finding(problem=WRONG_COUNT, path=str(path), detail=detail)


def _check_extra(folder: Path, record: PartRecord) -> Iterator[Finding]:
    added = (name for name in ADDED_LATER if (folder / name).is_dir())
    known = {PART_FILE, *added, *(file.name for file in (*record.shards, *record.tables))}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield Finding(problem=EXTRA, path=str(path), detail="part.json does not record it")
    for path in sorted(path for name in ADDED_LATER for path in (folder / name).glob("*")):
        if not _is_added(folder, path):
            yield Finding(problem=EXTRA, path=str(path), detail="neither lengths nor facts that a build has added")


def _is_added(folder: Path, path: Path) -> bool:
    """Has the file the name of lengths or facts?"""
    name = path.relative_to(folder).as_posix()
    return path.is_file() and (name in DECODED_NAMES or LENGTHS_NAME.fullmatch(name) is not None)


def _check_contents(task: PartTask, record: PartRecord) -> Iterator[Finding]:
    """Rows and samples, read from tables that are as they were written: others would only say the same again."""
    folder = task.folder
    try:
        yield from _check_rows(folder, record)
        yield from first_of(check_samples(folder, record))
        yield from _check_lengths(task)
        yield from _check_decoded(task)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none
            raise StorageError(f"{folder}: cannot be read: {error.strerror}") from error
        detail = f"its tables cannot be read: {first_line(error)}"
        yield Finding(problem=UNREADABLE, path=str(folder), detail=detail)


def _check_rows(folder: Path, record: PartRecord) -> Iterator[Finding]:
    status = pq.read_table(folder / "samples.parquet", columns=["status"])["status"]
    kept = pc.sum(pc.equal(status, "kept")).as_py() or 0
    num_texts = pq.read_metadata(folder / "texts.parquet").num_rows
    counts = [
        ("samples.parquet", "kept rows", kept, record.num_kept),
        ("samples.parquet", "rejected rows", len(status) - kept, record.num_rejected),
        ("texts.parquet", "rows", num_texts, record.num_kept),
    ]
    for name, what, found, expected in counts:
        if found != expected:
            detail = f"{found:,} {what}, part.json says {expected:,}"
            yield Finding(problem=WRONG_COUNT, path=str(folder / name), detail=detail)


def _check_lengths(task: PartTask) -> Iterator[Finding]:
    """The lengths that the mix pins, or all that are there."""
    folder, pin = task.folder, task.pin
    if pin is not None:
        yield from check_pinned(folder / pin.lengths, pin.lengths_xxh3_128, problem=DAMAGED)
    there = sorted(path for path in (folder / "lengths").glob("*") if _is_added(folder, path))
    paths = [folder / pin.lengths] if pin is not None else there
    for path in paths:
        schema = list(check_schema(path, LENGTHS))
        yield from schema
        if path.is_file() and not schema:
            yield from _check_length_rows(folder, path)


def _check_length_rows(folder: Path, path: Path) -> Iterator[Finding]:
    """Lengths have a row for each conversation of each kept sample, in order (semantics B5)."""
    filters = [("status", "==", "kept")]
    samples = pq.read_table(
        folder / "samples.parquet", columns=["sample_key", "num_alternatives", "status"], filters=filters
    )
    counts = samples["num_alternatives"].to_pylist()
    try:
        lengths = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield _damaged(path, error)
        return
    if len(lengths) != sum(counts):
        detail = f"{len(lengths):,} rows, the part has {sum(counts):,} conversations"
        yield Finding(problem=WRONG_COUNT, path=str(path), detail=detail)
    keys = zip(samples["sample_key"].to_pylist(), counts, strict=True)
    expected = {(key, alternative) for key, count in keys for alternative in range(count)}
    found = set(zip(*(lengths[name].to_pylist() for name in ("sample_key", "alternative")), strict=True))
    if found != expected:
        detail = (
            f"it has not a row for each conversation: {len(expected - found):,} lack, {len(found - expected):,} more"
        )
        yield Finding(problem=STALE_INDEX, path=str(path), detail=detail)


def _check_decoded(task: PartTask) -> Iterator[Finding]:
    """Decoded facts, where they have been taken, have a row for each row of media.parquet, in its order."""
    folder, path = task.folder, task.folder / DECODED_NAME
    if task.pin is not None and task.pin.decoded is not None and task.pin.decoded_xxh3_128 is not None:
        yield from check_pinned(folder / task.pin.decoded, task.pin.decoded_xxh3_128, problem=DAMAGED)
    schema = list(check_schema(path, DECODED))
    yield from schema
    if not path.is_file() or schema:
        return
    try:
        found = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield _damaged(path, error)
        return
    if not found.select(COPIED).equals(pq.read_table(folder / "media.parquet", columns=list(COPIED))):
        detail = "its rows are not the media that media.parquet lists"
        yield Finding(problem=STALE_INDEX, path=str(path), detail=detail)


def _damaged(path: Path, error: pa.ArrowException | OSError) -> Finding:
    """Of a table with checksums in it. Raises StorageError when it is the storage that fails."""
    if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error
    return Finding(problem=DAMAGED, path=str(path), detail=first_line(error))
