"""What will a build do? Its sources and their parts, before anything is converted."""

from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
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
