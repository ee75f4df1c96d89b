"""The story of a verification: what a path means -> every part, in parallel -> what ties the parts together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_catalogs.console import Progress, fact
from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import PartRecord, part_folder, read_part
from vlm_catalogs.manifest import Manifest, read_manifest
from vlm_prep.verify.findings import SWAPPED, UNREADABLE, Finding
from vlm_prep.verify.layouts import check_layout
from vlm_prep.verify.mixes import check_manifest, check_selection, layout_of
from vlm_prep.verify.parts import PartTask, check_part
from vlm_prep.verify.targets import Target, find_target
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


def verify(path: str, *, num_workers: int = 0) -> Verified:
    """Every fault under ``path``. Raises ConfigError for a wrong path and StorageError when the storage fails."""
    target = find_target(path)
    if target.mix is None:
        return _finish(
            [], [], [task for layout in target.layouts for task in _layout_tasks(layout)], target, num_workers
        )
    try:
        manifest = read_manifest(target.mix)
    except DataError as error:
        finding = Finding(problem=UNREADABLE, path=str(target.mix / "manifest.json"), detail=str(error))
        return Verified(num_parts=0, num_samples=0, num_bytes=0, findings=(finding,))
    before = list(check_manifest(target.mix, manifest))
    after = check_selection(target.mix, manifest)
    layouts = tuple(dict.fromkeys(layout_of(target.mix, dataset) for dataset in manifest.datasets))
    present = tuple(layout for layout in layouts if layout.is_dir())
    return _finish(before, after, _mix_tasks(target.mix, manifest), Target(layouts=present), num_workers)


def _layout_tasks(layout: Path) -> list[PartTask]:
    dataset = layout.resolve().parent.name
    return [PartTask(folder=folder, dataset=dataset) for folder in sorted((layout / "parts").iterdir())]


def _mix_tasks(mix: Path, manifest: Manifest) -> list[PartTask]:
    return [
        PartTask(folder=part_folder(layout_of(mix, dataset), part.name), dataset=dataset.name, pin=part)
        for dataset in manifest.datasets
        for part in dataset.parts
    ]


def _finish(
    before: list[Finding], after: list[Finding], tasks: Sequence[PartTask], target: Target, num_workers: int
) -> Verified:
    """The parts in parallel, then what ties them together."""
    started = time.monotonic()
    records = _records(tasks)
    num_bytes = sum(file.bytes for record in records.values() for file in (*record.shards, *record.tables))
    workers = num_processes(num_workers, is_small=num_bytes < SMALL_BYTES)
    with Progress("verify", total=len(tasks), unit="parts") as progress:
        found = run_tasks(check_part, tasks, num_workers=workers, on_done=lambda _: progress.advance())
    of_parts = [finding for findings in found for finding in findings]
    of_layouts = [finding for layout in target.layouts for finding in check_layout(layout)]
    findings = (*before, *_name_swapped(of_parts, records), *of_layouts, *after)
    verified = Verified(
        num_parts=len(tasks),
        num_samples=sum(record.num_kept for record in records.values()),
        num_bytes=num_bytes,
        findings=tuple(dict.fromkeys(findings)),
    )
    fact(
        f"verify: {verified.num_parts:,} parts, {verified.num_samples:,} samples, {num_bytes / 1e6:,.1f} MB, "
        f"{len(verified.findings):,} findings, {time.monotonic() - started:.1f} s"
    )
    return verified


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
