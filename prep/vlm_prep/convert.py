"""One part: its inputs become shards, three index tables and, last of all, part.json."""

import gc
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import parent_process
from pathlib import Path

from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import INDEX_TABLES, PART_FILE, PartRecord, StoredFile, part_folder
from vlm_catalogs.sample import SHARD_FORMAT
from vlm_catalogs.source import I4Source, Source
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.index_tables import IndexTables
from vlm_prep.mds_shard import ClosedShard, ShardWriter
from vlm_prep.part_store import PartStore
from vlm_prep.parts import PlannedPart
from vlm_prep.plain_run import FEW_SAMPLES, PlainRun
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import read_part, read_part_in_runs
from vlm_prep.s3_inputs import fetched_part
from vlm_prep.source_plan import SourcePlan
from vlm_prep.staging import writing
from vlm_prep.unchanged import Stamp, check_unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertTask:
    """One part to convert; crosses to worker processes."""

    source: Source
    file_format: str
    part: PlannedPart
    store: PartStore
    layout: Path
    """``shards/<dataset>/<layout>``."""
    staging: Path
    scratch: Path
    """Inputs that lie elsewhere are fetched below it."""
    limits: Limits
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    """The part's local inputs as they stood when it was planned."""


def convert_task(
    plan: SourcePlan, part: PlannedPart, *, limits: Limits, staging: Path, scratch: Path | None = None
) -> ConvertTask:
    """The task of one part of a plan; what it fetches lies in staging too, where no scratch folder is given."""
    return ConvertTask(
        source=plan.source,
        file_format=plan.file_format,
        part=part,
        store=plan.store,
        layout=plan.layout,
        staging=staging,
        scratch=scratch or staging,
        limits=limits,
        stamps={one.path: plan.stamps[one.path] for one in part.inputs if one.path in plan.stamps},
    )


def convert_part(task: ConvertTask) -> None:
    """Convert one part and publish it. Raises DataError or StorageError; then nothing is published."""
    folder = stage_part(task)
    task.store.publish_part(folder, part_folder(task.layout, task.part.name))


def stage_part(task: ConvertTask) -> Path:
    """The folder in staging that holds the converted part, whole but not published. Raises DataError, StorageError."""
    try:
        return _stage_part(task)
    finally:
        check_unchanged(task.part, task.stamps)  # an input that changes meanwhile is the better error, too


def _stage_part(task: ConvertTask) -> Path:
    attempt = uuid.uuid4().hex[:8]  # a lost worker of a cluster leaves its folder behind, or writes on in it
    folder = task.staging / f"{task.source.name}-{task.part.name}-{attempt}"
    with writing(folder):
        folder.mkdir()
    tables = IndexTables(folder, dataset=task.source.name, part=task.part.name)
    try:
        shards = _write_samples(task, folder, tables)
    finally:
        tables.abandon()
    with writing(folder):
        record = _record(task, folder, tables, shards)
        (folder / PART_FILE).write_text(record.as_json())
    return folder


def _write_samples(task: ConvertTask, folder: Path, tables: IndexTables) -> tuple[ClosedShard, ...]:
    """Write the samples of the part into shards and their rows into ``tables``, whole; the shards."""
    with ShardWriter(folder, behind=_has_cores_to_spare()) as writer, few_collections(), quick_turns():
        for found in _samples_and_runs(task):
            if isinstance(found, PlainRun):
                _keep_run(found, task, writer, tables)
            else:
                _keep(build_sample(found, task.limits) if isinstance(found, RawSample) else found, task, writer, tables)
            del found  # up to 256 MiB, not to be held while the next one is read
        tables.write(writer.close())  # while the last shard may still be written
        return writer.finish()


def _keep(sample: BuiltSample | RejectedSample, task: ConvertTask, writer: ShardWriter, tables: IndexTables) -> None:
    if isinstance(sample, BuiltSample):
        tables.add_kept(sample, writer.write(sample.payloads(task.source.name)))
    else:
        tables.add_rejected(sample)


def _keep_run(run: PlainRun, task: ConvertTask, writer: ShardWriter, tables: IndexTables) -> None:
    if len(run) > FEW_SAMPLES:
        tables.add_run(run, writer.write_run(run.payloads(task.source.name)))
    else:
        for sample in run.samples():
            _keep(sample, task, writer, tables)


def _has_cores_to_spare() -> bool:
    """Does this process convert alone, with a second core? Of several worker processes, each has its own."""
    return parent_process() is None and len(os.sched_getaffinity(0)) > 1


def raw_samples(task: ConvertTask) -> Iterator[RawSample | RejectedSample]:
    """The samples of the part, its inputs fetched where they lie elsewhere."""
    with _fetched(task) as part:
        yield from read_part(task.source, task.file_format, part, task.limits)


def _samples_and_runs(task: ConvertTask) -> Iterator[PlainRun | RawSample | RejectedSample]:
    with _fetched(task) as part:
        yield from read_part_in_runs(task.source, task.file_format, part, task.limits)


def _fetched(task: ConvertTask) -> AbstractContextManager[PlannedPart]:
    credentials = task.source.credentials_path if isinstance(task.source, I4Source) else None
    scratch = task.scratch / f"fetched-{task.part.name}-{uuid.uuid4().hex[:8]}"
    return fetched_part(task.part, credentials, scratch)


@contextmanager
def few_collections() -> Iterator[None]:
    """Within it, garbage in cycles is looked for after every 100,000 new objects, not after 700.

    Samples hold no cycles and go when they are written; looking through them again and again took a tenth of the time.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextmanager
def quick_turns() -> Iterator[None]:
    """Within it, a thread that waits for the interpreter's lock gets it after half a millisecond, not after five.

    Those that write a shard need it dozens of times for a moment each, and stood still meanwhile.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _record(task: ConvertTask, folder: Path, tables: IndexTables, shards: tuple[ClosedShard, ...]) -> PartRecord:
    return PartRecord(
        name=task.part.name,
        dataset=task.source.name,
        shard_format=SHARD_FORMAT,
        inputs=tuple(part_input.as_json() for part_input in task.part.inputs),
        num_kept=tables.num_kept,
        num_rejected=tables.num_rejected,
        num_out_of_order=tables.num_out_of_order,
        shards=tuple(StoredFile(name=shard.name, bytes=shard.bytes, xxh3_128=shard.xxh3_128) for shard in shards),
        shard_samples=tuple(shard.num_samples for shard in shards),
        tables=tuple(_stored(folder / name) for name in INDEX_TABLES),
    )


def _stored(path: Path) -> StoredFile:
    return StoredFile(name=path.name, bytes=path.stat().st_size, xxh3_128=file_hash(path))
