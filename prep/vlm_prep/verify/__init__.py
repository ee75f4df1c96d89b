"""The story of a verification: what a path means -> every part, in parallel -> what ties the parts together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_catalogs.console import Progress, fact
from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import PartRecord, part_folder, read_part
from vlm_catalogs.manifest import MANIFEST_FILE, Manifest, read_manifest
from vlm_catalogs.mix_place import layout_folder
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.verify.findings import SWAPPED, UNREADABLE, Finding
from vlm_prep.verify.layouts import check_layout
from vlm_prep.verify.mixes import check_manifest, check_selection
from vlm_prep.verify.parts import PartTask, check_part
from vlm_prep.verify.stored_target import as_addressed, copy_records, fresh_target
from vlm_prep.workers import num_processes, run_tasks

SMALL_BYTES = 256 << 20
"""Less than this is read in the main process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was looked at, and what was found."""

    num_parts: int
    num_samples: int
    num_bytes: int
    findings: tuple[Finding, ...]


def verify(path: str, *, num_workers: int = 0, credentials: str | None = None) -> Verified:
    """Every fault under ``path``; ``credentials`` as in ``copies_for``.

    Raises ConfigError for a wrong path and StorageError when the storage fails."""
    with fresh_target(path, credentials=credentials) as target:
        if target.mix is None:
            tasks = [task for layout in target.layouts for task in _layout_tasks(layout, target.copies)]
            verified = _finish(tasks, target.layouts, num_workers)
        else:
            verified = _verify_mix(target.mix, target.copies, num_workers)
        return replace(verified, findings=tuple(as_addressed(one, target) for one in verified.findings))


def _verify_mix(mix: Path, copies: ObjectCopies, num_workers: int) -> Verified:
    try:
        manifest = read_manifest(mix)
    except DataError as error:
        finding = Finding(problem=UNREADABLE, path=str(mix / MANIFEST_FILE), detail=str(error))
        return Verified(num_parts=0, num_samples=0, num_bytes=0, findings=(finding,))
    named = tuple(dict.fromkeys(layout_folder(mix, dataset, copies) for dataset in manifest.datasets))
    for layout in named:
        copy_records(layout, copies)
    before = list(check_manifest(mix, manifest, copies))
    present = tuple(layout for layout in named if layout.is_dir())
    verified = _finish(_mix_tasks(mix, manifest, copies), present, num_workers)
    findings = (*before, *verified.findings, *check_selection(mix, manifest, copies))
    return replace(verified, findings=tuple(dict.fromkeys(findings)))


def _layout_tasks(layout: Path, copies: ObjectCopies) -> list[PartTask]:
    copy_records(layout, copies)
    dataset = layout.resolve().parent.name
    folders = sorted((layout / "parts").iterdir())
    return [PartTask(folder=folder, dataset=dataset, copies=copies) for folder in folders]


def _mix_tasks(mix: Path, manifest: Manifest, copies: ObjectCopies) -> list[PartTask]:
    return [
        PartTask(
            folder=part_folder(layout_folder(mix, dataset, copies), part.name),
            dataset=dataset.name,
            pin=part,
            copies=copies,
        )
        for dataset in manifest.datasets
        for part in dataset.parts
    ]


def _finish(tasks: Sequence[PartTask], layouts: Sequence[Path], num_workers: int) -> Verified:
    """The parts in parallel, then what ties them together."""
    started = time.monotonic()
    records = _records(tasks)
    num_bytes = sum(file.bytes for record in records.values() for file in (*record.shards, *record.tables))
    workers = num_processes(num_workers, is_small=num_bytes < SMALL_BYTES)
    with Progress("verify", total=len(tasks), unit="parts") as progress:
        found = run_tasks(check_part, tasks, num_workers=workers, on_done=lambda _: progress.advance())
    of_parts = [finding for findings in found for finding in findings]
    verified = {task.folder for task in tasks}
    of_layouts = [finding for layout in layouts for finding in check_layout(layout, verified)]
    findings = (*_name_swapped(of_parts, records), *of_layouts)
    found_all = Verified(
        num_parts=len(tasks),
        num_samples=sum(record.num_kept for record in records.values()),
        num_bytes=num_bytes,
        findings=tuple(dict.fromkeys(findings)),
    )
    fact(
        f"verify: {found_all.num_parts:,} parts, {found_all.num_samples:,} samples, {num_bytes / 1e6:,.1f} MB, "
        f"{len(found_all.findings):,} findings, {time.monotonic() - started:.1f} s"
    )
    return found_all


def _records(tasks: Sequence[PartTask]) -> dict[Path, PartRecord]:
    """The records that can be read; what is wrong with the others is a finding of their part."""
    records = {}
    for task in tasks:
        try:
            records[task.folder] = read_part(task.folder)
        except (DataError, OSError):
            continue
    return records


def _name_swapped(findings: Sequence[Finding], records: dict[Path, PartRecord]) -> list[Finding]:
    """Where the content of a damaged file is that of another recorded file, say which."""
    known = {
        file.xxh3_128: str(folder / file.name)
        for folder, record in records.items()
        for file in (*record.shards, *record.tables)
    }
    return [_swapped_or_same(finding, known) for finding in findings]


def _swapped_or_same(finding: Finding, known: dict[str, str]) -> Finding:
    other = known.get(finding.found_xxh3_128 or "")
    if other is None:
        return finding
    return replace(finding, problem=SWAPPED, detail=f"it holds the content of {other}", found_xxh3_128=None)
