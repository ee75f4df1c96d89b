"""The stage that converts the parts that are missing."""

import time
from collections.abc import Mapping
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.console import Progress, fact, note
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_prep.build_log import BuildLog
from vlm_prep.build_plan import BuildPlan
from vlm_prep.convert import ConvertTask, convert_part, convert_task
from vlm_prep.converted_so_far import ConvertedSoFar
from vlm_prep.disk_room import check_room, fetched_bytes, in_work
from vlm_prep.estimate import estimate
from vlm_prep.lengths import profile_of
from vlm_prep.mix import PreparedSource
from vlm_prep.raw_sample import Limits
from vlm_prep.source_plan import SourcePlan, read_parts, record_notes
from vlm_prep.workplace import Workplace

SMALL_BYTES = 64 << 20
"""Less than this is converted in the main process: starting workers would take longer."""


def convert_missing(config: Config, plan: BuildPlan, place: Workplace, log: BuildLog) -> None:
    """Convert the parts that are missing."""
    tasks = [task for source in plan.sources for task in _convert_tasks(config, source, place)]
    num_parts = sum(len(source.parts) for source in plan.sources)
    num_bytes = sum(task.part.num_bytes for task in tasks)
    workers = place.num_processes(is_small=num_bytes < SMALL_BYTES)
    _check_room(config, plan, place, num_workers=workers)
    started = time.monotonic()
    so_far = ConvertedSoFar(tasks)
    with Progress("convert", total=num_bytes >> 20, unit="MiB") as progress:

        def done(task: ConvertTask) -> None:
            so_far.add(task)
            progress.advance(task.part.num_bytes >> 20, detail=str(so_far))

        place.run_tasks(
            convert_part,
            tasks,
            num_workers=workers,
            on_done=done,
        )
    cached = "all cached" if not tasks else f"{num_parts - len(tasks)} cached"
    fact(f"convert: {num_parts} parts, {cached}, {num_bytes / 1e6:,.1f} MB read, {time.monotonic() - started:.1f} s")
    log.note("convert", parts=num_parts, converted=len(tasks), bytes=num_bytes, workers=workers)


def _convert_tasks(config: Config, plan: SourcePlan, place: Workplace) -> list[ConvertTask]:
    limits = Limits.from_settings(config.mix)
    return [
        convert_task(plan, part, limits=limits, staging=place.staging, scratch=place.scratch) for part in plan.missing
    ]


def _check_room(config: Config, plan: BuildPlan, place: Workplace, *, num_workers: int) -> None:
    limits = Limits.from_settings(config.mix)
    estimates = [estimate(source, limits=limits) for source in plan.sources if source.missing]
    fetched = fetched_bytes(plan.sources, num_workers=num_workers)
    shards = plan.stores.shards
    if not shards.keeps_parts_here:
        estimates = in_work(plan.sources, estimates, num_workers=num_workers)
    check_room(estimates, shards=shards.folder, scratch=Path(config.mix.scratch or shards.folder), fetched=fetched)


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
