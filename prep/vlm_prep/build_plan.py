"""What will a build do? Its sources and their parts, before anything is converted."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError, UserError
from vlm_catalogs.object_store import is_s3
from vlm_catalogs.source import FileSource, Source
from vlm_catalogs.sources import resolve_sources
from vlm_prep.known_sources import known_plans
from vlm_prep.mix import check_epoch_size
from vlm_prep.needed_parts import check_needed
from vlm_prep.s3_mirror import ToCopy, local_source, still_to_copy
from vlm_prep.source_plan import SourcePlan, plan_source
from vlm_prep.stores import Stores, stores_of

KNOWN = "only weights or selection have changed: sources are as the last build found them (--refresh asks them again)"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """What a build will do, before it does any of it."""

    stores: Stores
    sources: tuple[SourcePlan, ...]
    notes: tuple[str, ...]
    resolved: tuple[Source, ...] = ()
    """The sources as the TOML names them."""
    to_copy: tuple[ToCopy, ...] = ()
    """Sources that have to be copied from S3 before their parts are known; only a dry run has any."""
    is_known: bool = False
    """Are the sources as the last build found them, and not asked?"""


def plan_build(
    config: Config, *, copy: bool = True, refresh: bool = True, on_problem: Callable[[UserError], object] | None = None
) -> BuildPlan:
    """The sources of a TOML and their parts; normal datasets in S3 are copied first, unless ``copy`` is false.

    Without ``refresh`` no source is asked where only weights or selection differ from the last build.

    Raises ConfigError, DataError or StorageError; those of a source go to ``on_problem`` where that is given, and the
    plan is without it.
    """
    check_epoch_size(config)
    check_needed(config)
    resolved = resolve_sources(config)
    stores = stores_of(config)
    _refuse_output_in_sources(config, resolved.sources, stores)
    if not refresh and (known := known_plans(config, resolved.sources, stores)) is not None:
        notes = (*resolved.notes, *(text for plan in known for text in plan.notes), KNOWN)
        return BuildPlan(stores=stores, sources=known, notes=notes, resolved=tuple(resolved.sources), is_known=True)
    shards = stores.shards.folder
    plans: list[SourcePlan] = []
    to_copy: list[ToCopy] = []
    for source in resolved.sources:
        try:
            if not copy and (missing := still_to_copy(source, shards)).num_objects:
                to_copy.append(missing)
            else:
                plans.append(plan_source(local_source(source, shards), config, stores.shards))
        except UserError as error:
            if on_problem is None:
                raise
            on_problem(error)
    notes = (*resolved.notes, *(text for plan in plans for text in plan.notes))
    return BuildPlan(
        stores=stores,
        sources=tuple(plans),
        notes=notes,
        resolved=tuple(resolved.sources),
        to_copy=tuple(to_copy),
    )


def _refuse_output_in_sources(config: Config, sources: Sequence[Source], stores: Stores) -> None:
    """Raise ConfigError where the next build would read what this one writes."""
    outputs = {"mix.shards": stores.shards.folder, "mix.root": stores.mix.folder.parent}
    for source in sources:
        if not isinstance(source, FileSource) or is_s3(source.path) or not Path(source.path).is_dir():
            continue
        folder = Path(os.path.realpath(source.path))
        for key, output in outputs.items():
            if Path(os.path.realpath(output)).is_relative_to(folder):
                raise ConfigError(
                    f"{source.origin}: {source.name}: {key} {output} lies in the source {source.path}, which the next "
                    f"build would read with what this one writes; put one of them elsewhere"
                )
