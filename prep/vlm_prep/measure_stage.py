"""The stage that measures the parts that have no lengths for their encoding yet."""

import time
from collections.abc import Mapping, Sequence

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_prep.added_tables import check_table
from vlm_prep.build_log import BuildLog
from vlm_prep.build_plan import BuildPlan
from vlm_prep.lengths import (
    MeasureTask,
    lengths_name,
    measure,
    profile_of,
    render_settings,
    renderer_for,
)
from vlm_prep.mix import PreparedSource, profiles
from vlm_prep.stage_counts import Key, Made, Piece
from vlm_prep.stage_progress import StageProgress
from vlm_prep.workplace import Workplace

SMALL_SAMPLES = 2_000
"""Fewer than these are measured in the main process."""


def load_renderers(config: Config, plan: BuildPlan) -> dict[Profile, Renderer]:
    """Profile -> renderer; loaded first, so that a model that cannot be read fails before the long part."""
    found = profiles([source.source for source in plan.sources])
    model = config.policy.model_name_or_path
    return {profile: renderer_for(model, render_settings(config, profile)) for profile in found}


def measure_missing(
    config: Config,
    prepared: Sequence[PreparedSource],
    renderers: Mapping[Profile, Renderer],
    place: Workplace,
    log: BuildLog,
) -> None:
    """Measure the parts that have no lengths for their encoding yet."""
    for source in prepared:
        lengths = source.tables(lengths_name(source.encoding))
        source.plan.store.bring(lengths, below=source.plan.layout / "parts")
    tasks = [task for source in prepared for task in _measure_tasks(config, source, place)]
    num_kept = {(source.name, record.name): record.num_kept for source in prepared for record in source.records}
    pieces = [Piece(source=task.dataset, part=task.folder.name, work=num_kept[_key(task)]) for task in tasks]
    num_samples = sum(piece.work for piece in pieces)
    started = time.monotonic()
    workers = place.num_processes(is_small=num_samples < SMALL_SAMPLES)
    with StageProgress("measure", pieces, num_workers=workers) as progress:
        place.run_tasks(
            measure,
            tasks,
            num_workers=workers,
            on_done=lambda task: progress.done(_key(task), Made(samples=num_kept[_key(task)])),
        )
    for source in prepared:
        for path in source.tables(lengths_name(source.encoding)):
            check_table(path, source.plan.store)
    num_parts = sum(len(source.records) for source in prepared)
    cached = "all cached" if not tasks else f"{num_parts - len(tasks)} cached"
    fact(f"measure: {num_parts} parts, {cached}, {num_samples:,} samples, {time.monotonic() - started:.1f} s")
    log.note("measure", parts=num_parts, measured=len(tasks), samples=num_samples, workers=workers)


def _key(task: MeasureTask) -> Key:
    return task.dataset, task.folder.name


def _measure_tasks(config: Config, source: PreparedSource, place: Workplace) -> list[MeasureTask]:
    return [
        MeasureTask(
            folder=folder,
            dataset=source.name,
            store=source.plan.store,
            model=config.policy.model_name_or_path,
            settings=render_settings(config, profile_of(source.plan.source)),
            fingerprint=source.encoding,
            staging=place.staging,
        )
        for folder in source.plan.folders()
        if not (folder / lengths_name(source.encoding)).is_file()
    ]
