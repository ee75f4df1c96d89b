"""Broken parts of a mix made again from their sources; what would not come out as it was is named, and left alone."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.console import Progress, fact, note
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import PART_FILE, PartRecord, compacted_folder, part_folder, read_part
from vlm_catalogs.manifest import Manifest, PinnedPart, read_manifest
from vlm_catalogs.mix_place import find_current, layout_folder, local_path, mix_root
from vlm_prep.build_plan import plan_build
from vlm_prep.convert import ConvertTask, convert_task, stage_part
from vlm_prep.lengths import MeasureTask, lengths_name, measure, profile_of, render_settings, renderer_for
from vlm_prep.part_store import PartStore
from vlm_prep.parts import PlannedPart
from vlm_prep.raw_sample import Limits
from vlm_prep.source_files import publish_source
from vlm_prep.source_plan import SourcePlan, read_parts
from vlm_prep.stores import Stores, stores_of
from vlm_prep.verify.findings import EXTRA, Finding
from vlm_prep.verify.parts import ADDED_LATER
from vlm_prep.workers import num_processes, run_tasks

BROKEN = ".broken"
"""Where broken parts lie afterwards, under the shards folder: nothing is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPart:
    """A part that a mix pins, and that verification found fault with."""

    dataset: str
    folder: Path
    pin: PinnedPart
    sound: tuple[Path, ...]
    """Files that were added to it later (lengths, facts) and that nothing is wrong with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairTask:
    """One part to make again; crosses to worker processes."""

    broken: BrokenPart
    convert: ConvertTask
    away: Path
    """Where the broken folder goes."""


def repair_mix(config: Config, findings: Sequence[Finding], *, num_workers: int = 0) -> int:
    """How many broken parts of the TOML's current mix were made again; compactions that are wrong go.

    Raises DataError, replacing nothing, when a source is not what it was or gives other bytes.
    """
    stores = stores_of(config)
    store, copies = stores.shards, stores.copies
    mix = find_current(mix_root(config, copies), copies)
    num_compactions = _delete_compactions(read_manifest(mix), mix, findings, stores)
    broken = list(_broken_parts(mix, read_manifest(mix), findings, stores))
    if not broken:
        return num_compactions
    limits = Limits.from_settings(config.mix)
    with store.staging(alone=True) as staging:
        plans = {plan.source.name: plan for plan in plan_build(config, refresh=True).sources}
        planned = [(one, plans.get(one.dataset), _planned_part(one, plans.get(one.dataset), store)) for one in broken]
        tasks = [
            RepairTask(
                broken=one,
                convert=convert_task(plan, part, limits=limits, staging=staging),
                away=store.folder / BROKEN / f"{one.dataset}-{one.pin.name}-{uuid.uuid4().hex[:8]}",
            )
            for one, plan, part in planned
            if plan is not None
        ]
        workers = num_processes(num_workers, is_small=len(tasks) == 1)
        with Progress("repair", total=len(tasks), unit="parts") as progress:
            run_tasks(remake_part, tasks, num_workers=workers, on_done=lambda _: progress.advance())
        for one in broken:
            _measure_again(config, one, plans[one.dataset], staging)
        for plan in (plans[name] for name in dict.fromkeys(one.dataset for one in broken)):
            if not plan.missing:
                publish_source(plan, read_parts(plan), staging=staging)
    fact(f"repair: {len(broken)} parts made again; what was broken lies in {store.shown(store.folder / BROKEN)}")
    return len(broken)


def _broken_parts(mix: Path, manifest: Manifest, findings: Sequence[Finding], stores: Stores) -> Iterator[BrokenPart]:
    copies, store = stores.copies, stores.shards
    faults = [local_path(finding.path, copies) for finding in findings if finding.problem != EXTRA]
    for dataset in manifest.datasets:
        for pin in dataset.parts:
            folder = part_folder(layout_folder(mix, dataset, copies), pin.name)
            inside = [path for path in faults if path.is_relative_to(folder)]
            if inside:
                store.bring([folder / PART_FILE], below=folder)
                added = [path for name in ADDED_LATER for path in store.bring_matching("*", below=folder / name)]
                sound = tuple(path for path in added if path not in inside)
                yield BrokenPart(dataset=dataset.name, folder=folder, pin=pin, sound=sound)


def _delete_compactions(manifest: Manifest, mix: Path, findings: Sequence[Finding], stores: Stores) -> int:
    """How many had something wrong with them: what is derived is deleted, and made anew by the next build."""
    roots = [compacted_folder(layout_folder(mix, dataset, stores.copies)) for dataset in manifest.datasets]
    faults = [local_path(finding.path, stores.copies) for finding in findings if finding.problem != EXTRA]
    wrong = {
        root / path.relative_to(root).parts[0]
        for path in faults
        for root in roots
        if path.is_relative_to(root) and path != root
    }
    if wrong:
        with stores.shards.staging(alone=True) as staging:
            for folder in sorted(wrong):
                stores.shards.delete_part(folder, staging=staging)
        note(f"{len(wrong)} compactions are deleted; vlm-prep build-mix makes them anew")
    return len(wrong)


def _planned_part(broken: BrokenPart, plan: SourcePlan | None, store: PartStore) -> PlannedPart:
    """The part of today's sources with this name. Raises DataError, saying what changed, when there is none."""
    folder = store.shown(broken.folder)
    if plan is None:
        raise DataError(f"{folder}: the TOML names no source {broken.dataset!r} any more; it cannot be repaired")
    found = next((part for part in plan.parts if part.name == broken.pin.name), None)
    if found is not None and part_folder(plan.layout, found.name).resolve() == broken.folder.resolve():
        return found
    raise DataError(
        f"{folder}: cannot be made again, {_what_changed(broken, plan)}\n"
        "put the source back as it was, or build again: build-mix converts it as it is now"
    )


def _what_changed(broken: BrokenPart, plan: SourcePlan) -> str:
    if plan.layout.resolve() != broken.folder.parents[1].resolve():
        return "its source is read in another way now (format, keys, columns or max_sample_bytes of the TOML)"
    record = _old_record(broken)
    if record is None:
        return "no part of its source as it is now has its name"
    now = {one.name: (one.bytes, one.content_id) for part in plan.parts for one in part.inputs}
    changed = [str(_input_change(one, now)) for one in record.inputs if _input_change(one, now) is not None]
    return "its source has changed: " + (
        "; ".join(changed[:10]) or "its inputs are cut in another way, or media beside them have come back"
    )


def _input_change(recorded: Mapping[str, object], now: Mapping[str, tuple[int, str]]) -> str | None:
    name, before = str(recorded["name"]), (recorded["bytes"], recorded["content_id"])
    if name not in now:
        return f"{name} is gone"
    if now[name] == before:
        return None
    same = now[name][0] == before[0]
    return f"{name} has {'other content' if same else f'{now[name][0]:,} bytes, it had {before[0]:,}'}"


def remake_part(task: RepairTask) -> None:
    """Convert a part again and put it in the broken one's place. Raises DataError when it comes out otherwise."""
    staged, store = stage_part(task.convert), task.convert.store
    if file_hash(staged / PART_FILE) != task.broken.pin.part_json_xxh3_128:
        raise DataError(
            f"{store.shown(task.broken.folder)}: converted again, it is not what the mix pins: "
            f"{_differences(task.broken, staged)}; nothing was replaced. Was it written by another version of "
            "vlm-prep, or have media beside it changed? To take it as it is now, move its folder away (in S3: delete "
            "its objects, part.json first) and build again: that makes a new version of the mix"
        )
    store.replace_part(staged, task.broken.folder, away=task.away, sound=task.broken.sound)


def _differences(broken: BrokenPart, staged: Path) -> str:
    """Which files come out otherwise, as far as the old part.json can still say."""
    old, new = _old_record(broken), read_part(staged)
    if old is None:
        return "its part.json differs"
    before = {file.name: file for file in (*old.shards, *old.tables)}
    after = {file.name: file for file in (*new.shards, *new.tables)}
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    counts = f" ({old.num_kept:,} samples then, {new.num_kept:,} now)" if old.num_kept != new.num_kept else ""
    return (", ".join(names) or "part.json") + " differ" + counts


def _old_record(broken: BrokenPart) -> PartRecord | None:
    """What part.json said, if it is the file that the mix pins."""
    path = broken.folder / PART_FILE
    if not path.is_file() or file_hash(path) != broken.pin.part_json_xxh3_128:
        return None
    return read_part(broken.folder)


def _measure_again(config: Config, broken: BrokenPart, plan: SourcePlan, staging: Path) -> None:
    """The lengths that the mix pins, where the broken part had no sound ones."""
    lengths = broken.folder / broken.pin.lengths
    plan.store.bring([lengths], below=broken.folder)
    if lengths.is_file():
        return
    model, settings = config.policy.model_name_or_path, render_settings(config, profile_of(plan.source))
    fingerprint = renderer_for(model, settings).fingerprint
    if lengths_name(fingerprint) != broken.pin.lengths:
        note(f"{broken.dataset}: its lengths were measured with another tokenizer or settings; build the mix again")
        return
    measure(
        MeasureTask(
            folder=broken.folder,
            dataset=broken.dataset,
            store=plan.store,
            model=model,
            settings=settings,
            fingerprint=fingerprint,
            staging=staging,
        )
    )
