"""The stage that converts the parts that are missing."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact, note
from vlm_catalogs.layout import part_folder, read_part
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_prep.build_log import BuildLog
from vlm_prep.build_plan import BuildPlan
from vlm_prep.convert import ConvertTask, convert_part, convert_task
from vlm_prep.disk_room import check_room, fetched_bytes, in_work
from vlm_prep.estimate import Estimate, estimate
from vlm_prep.lengths import profile_of
from vlm_prep.mix import PreparedSource
from vlm_prep.parts_in_work import staged_so_far
from vlm_prep.raw_sample import Limits
from vlm_prep.source_plan import SourcePlan, read_parts, record_notes
from vlm_prep.stage_counts import Key, Made, Piece
from vlm_prep.stage_progress import StageProgress
from vlm_prep.workplace import Workplace

SMALL_BYTES = 64 << 20
"""Less than this is converted in the main process: starting workers would take longer."""


def convert_missing(config: Config, plan: BuildPlan, place: Workplace, log: BuildLog) -> None:
    """Convert the parts that are missing."""
    tasks = [task for source in plan.sources for task in _convert_tasks(config, source, place)]
    num_parts = sum(len(source.parts) for source in plan.sources)
    num_bytes = sum(task.part.num_bytes for task in tasks)
    workers = place.num_processes(is_small=num_bytes < SMALL_BYTES)
    estimates = _check_room(config, plan, place, num_workers=workers)
    started = time.monotonic()
    expansion = _expansions(plan, estimates)
    with StageProgress(
        "convert",
        [Piece(source=task.source.name, part=task.part.name, work=task.part.num_bytes) for task in tasks],
        num_workers=workers,
        ahead=lambda pieces: staged_so_far(place.staging, pieces, expansion=expansion),
    ) as progress:
        place.run_tasks(
            convert_part, tasks, num_workers=workers, on_done=lambda task: progress.done(_key(task), _made(task))
        )
    cached = "all cached" if not tasks else f"{num_parts - len(tasks)} cached"
    fact(f"convert: {num_parts} parts, {cached}, {num_bytes / 1e6:,.1f} MB read, {time.monotonic() - started:.1f} s")
    log.note("convert", parts=num_parts, converted=len(tasks), bytes=num_bytes, workers=workers)


def _convert_tasks(config: Config, plan: SourcePlan, place: Workplace) -> list[ConvertTask]:
    limits = Limits.from_settings(config.mix)
    return [
        convert_task(plan, part, limits=limits, staging=place.staging, scratch=place.scratch) for part in plan.missing
    ]


def _key(task: ConvertTask) -> Key:
    return task.source.name, task.part.name


def _made(task: ConvertTask) -> Made:
    """What came of a part that has just been converted, from what stands on the disk of it."""
    folder = part_folder(task.layout, task.part.name)
    record = read_part(folder)
    rejected: Counter[str] = Counter()
    if record.num_rejected:
        reasons = pq.read_table(folder / "samples.parquet", columns=["reason"])["reason"].drop_null()
        rejected.update(reasons.to_pylist())
    return Made(
        samples=record.num_kept + record.num_rejected,
        bytes=sum(shard.bytes for shard in record.shards),
        rejected=rejected,
    )


def _expansions(plan: BuildPlan, estimates: Sequence[Estimate]) -> dict[str, float]:
    """Source -> bytes written for each byte read, about."""
    to_read = {source.source.name: sum(part.num_bytes for part in source.missing) for source in plan.sources}
    return {one.name: one.bytes / max(1, to_read[one.name]) for one in estimates}


def _check_room(config: Config, plan: BuildPlan, place: Workplace, *, num_workers: int) -> list[Estimate]:
    """The estimate of each source that is still to convert. Raises StorageError where there is no room for them."""
    limits = Limits.from_settings(config.mix)
    estimates = [estimate(source, limits=limits) for source in plan.sources if source.missing]
    fetched = fetched_bytes(plan.sources, num_workers=num_workers)
    shards = plan.stores.shards
    here = estimates if shards.keeps_parts_here else in_work(plan.sources, estimates, num_workers=num_workers)
    check_room(here, shards=shards.folder, scratch=Path(config.mix.scratch or shards.folder), fetched=fetched)
    return estimates


def prepare_sources(plan: BuildPlan, renderers: Mapping[Profile, Renderer]) -> list[PreparedSource]:
    """The converted sources."""
    prepared = []
    for source in plan.sources:
        records = read_parts(source)
        for text in record_notes(source, records):
            note(text)
        encoding = renderers[profile_of(source.source)].fingerprint
        prepared.append(PreparedSource(plan=source, records=tuple(records), encoding=encoding))
    return prepared
