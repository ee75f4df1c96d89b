"""What will a build do? Its sources and their parts, before anything is converted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.errors import UserError
from vlm_catalogs.sources import resolve_sources
from vlm_prep.mix import check_epoch_size
from vlm_prep.needed_parts import check_needed
from vlm_prep.s3_mirror import ToCopy, local_source, still_to_copy
from vlm_prep.source_plan import SourcePlan, plan_source


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What a build will do, before it does any of it."""

    sources: tuple[SourcePlan, ...]
    notes: tuple[str, ...]
    to_copy: tuple[ToCopy, ...] = ()
    """Sources that have to be copied from S3 before their parts are known; only a dry run has any."""


def plan_build(
    config: Config, *, copy: bool = True, on_problem: Callable[[UserError], object] | None = None
) -> BuildPlan:
    """The sources of a TOML and their parts; normal datasets in S3 are copied first, unless ``copy`` is false.

    Raises ConfigError, DataError or StorageError; those of a source go to ``on_problem`` where that is given, and the
    plan is without it.
    """
    check_epoch_size(config)
    check_needed(config)
    resolved = resolve_sources(config)
    shards = Path(config.mix.shards)
    plans: list[SourcePlan] = []
    to_copy: list[ToCopy] = []
    for source in resolved.sources:
        try:
            if not copy and (missing := still_to_copy(source, shards)).num_objects:
                to_copy.append(missing)
            else:
                plans.append(plan_source(local_source(source, shards), config))
        except UserError as error:
            if on_problem is None:
                raise
            on_problem(error)
    notes = (*resolved.notes, *(text for plan in plans for text in plan.notes))
    return BuildPlan(sources=tuple(plans), notes=notes, to_copy=tuple(to_copy))
