"""The story of a build: sources -> parts -> shards and index -> lengths -> selection -> manifest, last current.json."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.console import Progress, fact, note
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.manifest import Manifest, manifest_text, read_manifest
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_catalogs.sources import resolve_sources
from vlm_prep.convert import ConvertTask, convert_part, convert_task
from vlm_prep.index_tables import write_table
from vlm_prep.lengths import (
    MeasureTask,
    check_lengths,
    describe_shortened,
    lengths_name,
    measure,
    profile_of,
    render_settings,
    renderer_for,
)
from vlm_prep.mix import PreparedSource, check_epoch_size, make_manifest, profiles, repeat_factor
from vlm_prep.needed_parts import check_needed, first_parts, more_parts, taken_plan
from vlm_prep.raw_sample import Limits
from vlm_prep.reasons import MEANINGS, meaning_of
from vlm_prep.s3_mirror import ToCopy, local_source, still_to_copy
from vlm_prep.select import Population, Rejections, Rules, open_index, read_rejections, select_samples
from vlm_prep.select_settings import read_rules
from vlm_prep.source_files import publish_source
from vlm_prep.source_plan import SourcePlan, plan_source, read_parts, record_notes
from vlm_prep.staging import publish_folder, publish_text, staging_folder, writing
from vlm_prep.workers import num_processes, run_tasks

SMALL_BYTES = 64 << 20
"""Less than this is converted in the main process: starting workers would take longer."""
SMALL_SAMPLES = 2_000
"""Fewer than these are measured in the main process."""
ALWAYS_ALLOWED = 10
"""So many rejected samples of a source never fail a build."""


@dataclass(slots=True)
class BuildLog:
    """What happened when; the only file of a mix that holds clocks."""

    started: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def note(self, stage: str, **facts: object) -> None:
        """Add one line."""
        clock = {"time": round(time.time(), 3), "seconds": round(time.monotonic() - self.started, 3)}
        self.lines.append(json_text.dumps({"stage": stage, **clock, **facts}))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What a build will do, before it does any of it."""

    sources: tuple[SourcePlan, ...]
    notes: tuple[str, ...]
    to_copy: tuple[ToCopy, ...] = ()
    """Sources that have to be copied from S3 before their parts are known; only a dry run has any."""


def plan_build(config: Config, *, copy: bool = True) -> BuildPlan:
    """The sources of a TOML and their parts; normal datasets in S3 are copied first, unless ``copy`` is false.

    Raises ConfigError, DataError or StorageError.
    """
    check_epoch_size(config)
    check_needed(config)
    resolved = resolve_sources(config)
    shards = Path(config.mix.shards)
    listed = [] if copy else [still_to_copy(source, shards) for source in resolved.sources]
    to_copy = tuple(one for one in listed if one.num_objects)
    later = {one.source.name for one in to_copy}
    here = [source for source in resolved.sources if source.name not in later]
    plans = tuple(plan_source(local_source(source, shards), config) for source in here)
    notes = (*resolved.notes, *(text for plan in plans for text in plan.notes))
    return BuildPlan(sources=plans, notes=notes, to_copy=to_copy)


def build_mix(config: Config) -> Path:
    """The folder of the mix version that the TOML describes, built or found. Raises UserError.

    What exists is whole: parts, lengths and the version appear by rename; current.json is swapped last. The same
    command after any interruption continues.
    """
    log = BuildLog()
    plan = plan_build(config)
    for text in plan.notes:
        note(text)
    rules = _rules(config, plan)
    renderers = _load_renderers(config, plan)
    log.note("plan", sources=len(plan.sources), parts=sum(len(source.parts) for source in plan.sources))
    numbers = first_parts(config, plan.sources)
    with staging_folder(Path(config.mix.shards)) as staging:
        while True:
            seed = config.mix.seed
            taken = [taken_plan(one, numbers[one.source.name], seed=seed) for one in plan.sources]
            indexed = _index(config, replace(plan, sources=tuple(taken)), renderers, rules, staging, log)
            more = more_parts(config, plan.sources, numbers, num_selected=_count_train(indexed.selection))
            if more == numbers:
                break
            numbers = more
        for source in indexed.prepared:
            publish_source(source.plan, source.records, staging=staging)
    population = [text for source in indexed.prepared for text in source.plan.notes if text not in plan.notes]
    for text in [*indexed.rejected, *population]:
        note(text)
    return _publish(config, indexed, renderers, log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """Sources that are converted, measured and selected from."""

    prepared: list[PreparedSource]
    selection: pa.Table
    rejected: list[str]
    """What to say of the samples that conversion left out."""


def _index(
    config: Config,
    plan: BuildPlan,
    renderers: Mapping[Profile, Renderer],
    rules: Rules,
    staging: Path,
    log: BuildLog,
) -> Indexed:
    _convert(config, plan, staging, log)
    prepared = _prepare(plan, renderers)
    with open_index(staging) as index:
        samples = [path for source in prepared for path in source.tables("samples.parquet")]
        rejected = _check_rejections(config, prepared, read_rejections(index, samples))
        _measure(config, prepared, renderers, staging, log)
        selection = select_samples(index, _population(prepared), rules)
    return Indexed(prepared=prepared, selection=selection, rejected=rejected)


def _load_renderers(config: Config, plan: BuildPlan) -> dict[Profile, Renderer]:
    """Profile -> renderer; loaded first, so that a model that cannot be read fails before the long part."""
    found = profiles([source.source for source in plan.sources])
    model = config.policy.model_name_or_path
    return {profile: renderer_for(model, render_settings(config, profile)) for profile in found}


def _convert(config: Config, plan: BuildPlan, staging: Path, log: BuildLog) -> None:
    """Convert the parts that are missing."""
    tasks = [task for source in plan.sources for task in _convert_tasks(config, source, staging)]
    num_parts = sum(len(source.parts) for source in plan.sources)
    num_bytes = sum(task.part.num_bytes for task in tasks)
    _check_space(Path(config.mix.shards), num_bytes)
    started = time.monotonic()
    workers = num_processes(config.mix.num_workers, is_small=num_bytes < SMALL_BYTES)
    with Progress("convert", total=num_bytes >> 20, unit="MiB") as progress:
        run_tasks(
            convert_part,
            tasks,
            num_workers=workers,
            on_done=lambda task: progress.advance(task.part.num_bytes >> 20),
        )
    cached = "all cached" if not tasks else f"{num_parts - len(tasks)} cached"
    fact(f"convert: {num_parts} parts, {cached}, {num_bytes / 1e6:,.1f} MB read, {time.monotonic() - started:.1f} s")
    log.note("convert", parts=num_parts, converted=len(tasks), bytes=num_bytes, workers=workers)


def _convert_tasks(config: Config, plan: SourcePlan, staging: Path) -> list[ConvertTask]:
    limits = Limits.from_setting(config.mix.max_sample_bytes)
    return [convert_task(plan, part, limits=limits, staging=staging) for part in plan.missing]


def _check_space(shards: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(shards).free
    if num_bytes > free:
        raise StorageError(f"{shards}: {num_bytes / 1e9:,.1f} GB are to be converted, {free / 1e9:,.1f} GB are free")


def _prepare(plan: BuildPlan, renderers: Mapping[Profile, Renderer]) -> list[PreparedSource]:
    """The converted sources."""
    prepared = []
    for source in plan.sources:
        records = read_parts(source)
        for text in record_notes(source, records):
            note(text)
        encoding = renderers[profile_of(source.source)].fingerprint
        prepared.append(PreparedSource(plan=source, records=tuple(records), encoding=encoding))
    return prepared


def _check_rejections(config: Config, prepared: Sequence[PreparedSource], found: Sequence[Rejections]) -> list[str]:
    """What to say of what conversion left out. Raises DataError when it is too much of a source."""
    failed, told = [], []
    for source in prepared:
        total = source.num_kept + source.num_rejected
        of_source = [door for door in found if door.dataset == source.name]
        lines = [f"{source.name}: {source.num_rejected:,} of {total:,} samples are rejected"] if of_source else []
        lines += [_rejection_line(door) for door in of_source]
        if source.num_rejected > max(ALWAYS_ALLOWED, config.mix.max_rejected_fraction * total):
            failed += lines
        elif lines:
            told.append("\n".join(lines))
    if failed:
        now = f"{config.mix.max_rejected_fraction:g}"
        advice = f"mend the source, or allow more with [mix] max_rejected_fraction (now {now})"
        raise DataError("\n".join([*failed, advice]))
    return told


def _rejection_line(door: Rejections) -> str:
    return (
        f"  {door.num_samples:,} x {door.reason}: {MEANINGS.get(door.reason, '')}\n"
        f"    such as {door.example}: {door.detail}"
    )


def _measure(
    config: Config,
    prepared: Sequence[PreparedSource],
    renderers: Mapping[Profile, Renderer],
    staging: Path,
    log: BuildLog,
) -> None:
    """Measure the parts that have no lengths for their encoding yet."""
    tasks = [task for source in prepared for task in _measure_tasks(config, source, staging)]
    todo = {task.folder.name for task in tasks}
    num_samples = sum(r.num_kept for source in prepared for r in source.records if r.name in todo)
    started = time.monotonic()
    workers = num_processes(config.mix.num_workers, is_small=num_samples < SMALL_SAMPLES)
    with Progress("measure", total=len(tasks), unit="parts") as progress:
        run_tasks(measure, tasks, num_workers=workers, on_done=lambda _: progress.advance())
    for source in prepared:
        for path in source.tables(lengths_name(source.encoding)):
            check_lengths(path)
    num_parts = sum(len(source.records) for source in prepared)
    cached = "all cached" if not tasks else f"{num_parts - len(tasks)} cached"
    fact(f"measure: {num_parts} parts, {cached}, {num_samples:,} samples, {time.monotonic() - started:.1f} s")
    log.note("measure", parts=num_parts, measured=len(tasks), samples=num_samples, workers=workers)


def _measure_tasks(config: Config, source: PreparedSource, staging: Path) -> list[MeasureTask]:
    return [
        MeasureTask(
            folder=folder,
            model=config.policy.model_name_or_path,
            settings=render_settings(config, profile_of(source.plan.source)),
            fingerprint=source.encoding,
            staging=staging,
        )
        for folder in source.plan.folders()
        if not (folder / lengths_name(source.encoding)).is_file()
    ]


def _population(prepared: Sequence[PreparedSource]) -> Population:
    return Population(
        samples=tuple(path for source in prepared for path in source.tables("samples.parquet")),
        lengths=tuple(path for source in prepared for path in source.tables(lengths_name(source.encoding))),
        media=tuple(path for source in prepared for path in source.tables("media.parquet")),
    )


def _rules(config: Config, plan: BuildPlan) -> Rules:
    return read_rules(config, {source.source.name: min(repeat_factor(source.source), 1.0) for source in plan.sources})


def _count_selected(prepared: Sequence[PreparedSource], selection: pa.Table) -> dict[str, int]:
    """Dataset -> selected samples to train on; says why the others are not."""
    counts = {}
    for source in prepared:
        rows = selection.filter(pc.equal(selection["dataset"], source.name))
        if rows.num_rows != source.num_kept:
            raise DataError(
                f"{source.plan.layout}: {source.num_kept:,} kept samples, {rows.num_rows:,} with lengths; "
                "move the lengths/ folders of its parts away and build again"
            )
        reasons = Counter(reason for reason in rows["reason"].to_pylist() if reason is not None)
        num_eval = pc.sum(pc.equal(rows["split"], "eval")).as_py() or 0
        counts[source.name] = source.num_kept - reasons.total() - num_eval
        if num_eval:
            note(f"{source.name}: {num_eval:,} of {source.num_kept:,} are held out for validation")
        if shortened := describe_shortened(rows):
            note(f"{source.name}: {shortened}")
        for reason, number in reasons.most_common():
            note(f"{source.name}: {number:,} of {source.num_kept:,} not selected: {reason} ({meaning_of(reason)})")
    return counts


def _count_train(selection: pa.Table) -> dict[str, int]:
    """Dataset -> selected samples to train on."""
    train = selection.filter(pc.and_(selection["selected"], pc.equal(selection["split"], "train")))
    counts = train.group_by("dataset").aggregate([("sample_key", "count")])
    return dict(zip(counts["dataset"].to_pylist(), counts["sample_key_count"].to_pylist(), strict=True))


def _count_tokens(selection: pa.Table) -> dict[str, int]:
    """Dataset -> tokens of its selected samples to train on."""
    train = selection.filter(pc.and_(selection["selected"], pc.equal(selection["split"], "train")))
    sums = train.group_by("dataset").aggregate([("total_tokens", "sum")])
    return dict(zip(sums["dataset"].to_pylist(), sums["total_tokens_sum"].to_pylist(), strict=True))


def _publish(config: Config, indexed: Indexed, renderers: Mapping[Profile, Renderer], log: BuildLog) -> Path:
    """Give the mix version its name, then point current.json at it."""
    prepared, selection = indexed.prepared, indexed.selection
    num_selected = _count_selected(prepared, selection)
    root = Path(config.mix.root) / config.mix_name
    with staging_folder(root) as staging:
        staged = staging / "version"
        with writing(staged):
            staged.mkdir()
            write_table(selection, staged / "selection.parquet")
        selection_hash = file_hash(staged / "selection.parquet")
        manifest = make_manifest(
            config,
            prepared,
            renderers,
            num_selected=num_selected,
            num_tokens=_count_tokens(selection),
            selection_hash=selection_hash,
            notes=[text for source in prepared for text in source.plan.notes],
        )
        fact(f"select: {sum(num_selected.values()):,} of {selection.num_rows:,} samples, {len(prepared)} datasets")
        log.note("select", selected=sum(num_selected.values()), fingerprint=manifest.fingerprint)
        with writing(staged):
            (staged / "build_log.jsonl").write_text("\n".join(log.lines) + "\n")
            (staged / "manifest.json").write_text(manifest_text(manifest))
        version = root / manifest.fingerprint
        if version.exists():
            _check_version(version, manifest, staging)
        else:
            publish_folder(staged, version, marker="manifest.json")
        current: dict[str, Any] = {"fingerprint": manifest.fingerprint}
        publish_text(json_text.dumps_indented(current), root / "current.json", staging=staging)
    return version


def _check_version(version: Path, manifest: Manifest, staging: Path) -> None:
    """The version is there already: see that it is whole, and that it finds shards that have moved."""
    try:
        found = read_manifest(version)
    except DataError as error:
        raise DataError(f"{error}\nor move {version} away and build again") from error
    selection = version / "selection.parquet"
    if not selection.is_file() or file_hash(selection) != found.selection_xxh3_128:
        raise DataError(f"{selection}: missing or damaged; move {version} away and build again")
    publish_text(manifest_text(manifest), version / "manifest.json", staging=staging)
