"""Do the sources still hold what the parts of a mix were made from? Every sample and every medium is read again."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from vlm_catalogs.config import Config
from vlm_catalogs.console import Progress, fact
from vlm_catalogs.layout import INDEX_TABLES, part_folder
from vlm_catalogs.manifest import read_manifest
from vlm_catalogs.mix_place import bring_parts, find_current, layout_folder, mix_root, pinned_parts
from vlm_prep.build_plan import plan_build
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.convert import ConvertTask, convert_task, raw_samples
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.verify.findings import SOURCE_CHANGED, Finding, first_of
from vlm_prep.workers import num_processes, run_tasks


class Stored(NamedTuple):
    """What the index says of one sample."""

    reason: str | None
    """Why it was rejected."""
    text_hash: str | None
    media: tuple[tuple[str, str], ...]
    """(name in the source, xxh3_128) of each medium."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTask:
    """One part whose source is read again; crosses to worker processes."""

    convert: ConvertTask
    folder: Path


def check_sources(config: Config, *, num_workers: int = 0) -> list[Finding]:
    """What has changed in the sources of the TOML's current mix. Raises UserError when they cannot be read at all."""
    build = plan_build(config)
    copies, plans = build.stores.copies, {plan.source.name: plan for plan in build.sources}
    mix = find_current(mix_root(config, copies), copies)
    manifest = read_manifest(mix)
    bring_parts(pinned_parts(mix, manifest, copies), copies, tables=INDEX_TABLES)
    limits = Limits.from_settings(config.mix)
    findings, tasks = [], []
    with build.stores.shards.staging() as staging:
        for dataset in manifest.datasets:
            plan = plans.get(dataset.name)
            now = {part.name: part for part in plan.parts} if plan is not None else {}
            for pin in dataset.parts:
                folder = part_folder(layout_folder(mix, dataset, copies), pin.name)
                if plan is None or pin.name not in now or not (folder / "samples.parquet").is_file():
                    detail = f"no part of {dataset.name} as it is now has this name: files have changed, come or gone"
                    findings.append(Finding(problem=SOURCE_CHANGED, path=copies.shown(folder), detail=detail))
                else:
                    converted = convert_task(plan, now[pin.name], limits=limits, staging=staging)
                    tasks.append(SourceTask(convert=converted, folder=folder))
        workers = num_processes(num_workers, is_small=len(tasks) <= 1)
        with Progress("sources", total=len(tasks), unit="parts") as progress:
            found = run_tasks(check_source, tasks, num_workers=workers, on_done=lambda _: progress.advance())
    findings += [finding for of_part in found for finding in of_part]
    fact(f"sources: {len(tasks):,} parts read again, {len(findings):,} findings")
    return findings


def check_source(task: SourceTask) -> list[Finding]:
    """What one part's source holds otherwise than its index says."""
    return first_of(_changes(task))


def _changes(task: SourceTask) -> Iterator[Finding]:
    stored = _stored(task.folder)
    for raw in raw_samples(task.convert):
        sample = build_sample(raw, task.convert.limits) if isinstance(raw, RawSample) else raw
        before, now = stored.pop(sample.origin.sample_id, None), _seen(sample)
        if before != now:
            path = f"{task.convert.source.name}/{sample.origin.sample_id}"
            yield Finding(problem=SOURCE_CHANGED, path=path, detail=_difference(before, now))
    for sample_id in stored:
        detail = "it is not in the source any more"
        yield Finding(problem=SOURCE_CHANGED, path=f"{task.convert.source.name}/{sample_id}", detail=detail)


def _seen(sample: BuiltSample | RejectedSample) -> Stored:
    if isinstance(sample, RejectedSample):
        return Stored(reason=sample.rejected.reason, text_hash=None, media=())
    media = tuple((medium.name, medium.xxh3_128) for medium in sample.media)
    return Stored(reason=None, text_hash=sample.texts.text_hash, media=media)


def _stored(folder: Path) -> dict[str, Stored]:
    """Sample id -> what the part's tables say."""
    columns = ["sample_id", "name", "xxh3_128"]
    rows = pq.read_table(folder / "media.parquet", columns=columns).to_pylist()
    media = {
        sample_id: tuple((row["name"], row["xxh3_128"]) for row in group)
        for sample_id, group in groupby(rows, key=lambda row: row["sample_id"])
    }
    samples = pq.read_table(folder / "samples.parquet", columns=["sample_id", "reason", "text_hash"]).to_pylist()
    return {
        row["sample_id"]: Stored(
            reason=row["reason"], text_hash=row["text_hash"], media=media.get(row["sample_id"], ())
        )
        for row in samples
    }


def _difference(before: Stored | None, now: Stored) -> str:
    if before is None:
        return "it was not in the source before"
    if before.reason != now.reason:
        was = f"rejected ({before.reason})" if before.reason else "kept"
        return f"it was {was}, it would be {f'rejected ({now.reason})' if now.reason else 'kept'} now"
    if before.text_hash != now.text_hash:
        return "its text has changed"
    changed = [name for (name, old), (_, new) in zip(before.media, now.media, strict=False) if old != new]
    return f"{', '.join(changed) or 'its media'}: not the content that was converted"
