"""What would a build do, how long, how large, and what stands in its way? Looked at without writing anything."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vlm_catalogs.config import Config
from vlm_catalogs.errors import UserError
from vlm_prep.build_plan import BuildPlan, plan_build
from vlm_prep.changed_since import changes_since
from vlm_prep.convert_stage import SMALL_BYTES
from vlm_prep.disk_room import check_room, check_writable, existing, fetched_bytes, in_work
from vlm_prep.estimate import Estimate, estimate
from vlm_prep.measure_stage import load_renderers
from vlm_prep.part_store import PartStore
from vlm_prep.raw_sample import Limits
from vlm_prep.select_stage import selection_rules
from vlm_prep.workplace import Workplace, memory_limit

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What a build would do."""

    plan: BuildPlan
    estimates: dict[str, Estimate]
    """Dataset -> what converting its missing parts takes."""
    num_workers: int
    free_bytes: int
    """On the disk of the shards."""
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    """What would stop it."""

    @property
    def bytes(self) -> int:
        """To be written; copies of what lies in S3 included, and as much again for their shards."""
        return sum(one.bytes for one in self.estimates.values()) + 2 * sum(one.bytes for one in self.plan.to_copy)

    @property
    def seconds(self) -> float:
        """Of converting, in ``num_workers`` processes; without what was not read here."""
        return sum(one.seconds or 0.0 for one in self.estimates.values()) / self.num_workers


def look(config: Config) -> DryRun:
    """The dry run; all problems of sources, selection, model and disk at once. Raises UserError without a plan."""
    problems: list[str] = []

    def tried(act: Callable[[], Found]) -> Found | None:
        try:
            return act()
        except UserError as error:
            problems.append(str(error))
            return None

    plan = plan_build(config, copy=False, on_problem=lambda error: problems.append(str(error)))
    limits = Limits.from_settings(config.mix)
    estimates = {}
    for source in plan.sources:
        if (found := tried(partial(estimate, source, limits=limits, with_time=True))) is not None:
            estimates[source.source.name] = found
    num_bytes = sum(part.num_bytes for source in plan.sources for part in source.missing)
    max_memory = tried(lambda: memory_limit(config))
    place = Workplace(staging=Path(), scratch=Path(), max_memory=max_memory, num_workers=config.mix.num_workers)
    workers = place.num_processes(is_small=num_bytes < SMALL_BYTES)
    store = plan.stores.shards
    shards = store.folder
    fetched = fetched_bytes(plan.sources, num_workers=workers)
    scratch = Path(config.mix.scratch or shards)
    stay = list(estimates.values())
    if not store.keeps_parts_here:
        known = [source for source in plan.sources if source.source.name in estimates]
        stay = in_work(known, stay, num_workers=workers)
    tried(lambda: check_writable(config, plan.stores))
    tried(lambda: check_room(stay, shards=shards, scratch=scratch, fetched=fetched))
    if not problems:  # rules may name any source
        tried(lambda: selection_rules(config, plan))
    if Path(config.policy.model_name_or_path).is_dir():  # one with a hub's name would be fetched
        tried(lambda: load_renderers(config, plan))
    return DryRun(
        plan=plan,
        estimates=estimates,
        num_workers=workers,
        free_bytes=shutil.disk_usage(existing(shards)).free,
        notes=(*plan.notes, *changes_since(config, plan.sources), *_others_at_work(store), *_rejections(estimates)),
        problems=tuple(problems),
    )


def _others_at_work(store: PartStore) -> list[str]:
    owners, shards = store.live_owners(), store.shown(store.folder)
    return (
        [f"{shards}: {len(owners)} builds are at work here; what they convert need not be converted"] if owners else []
    )


def _rejections(estimates: dict[str, Estimate]) -> list[str]:
    return [
        f"{name}: of {one.num_probed:,} samples read here {number:,} would be rejected: {reason}"
        for name, one in estimates.items()
        for reason, number in one.rejected.most_common()
    ]
