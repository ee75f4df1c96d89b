"""The story of a build: sources -> parts -> shards and index -> lengths -> selection -> manifest, last current.json."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.console import note
from vlm_catalogs.errors import DataError
from vlm_catalogs.manifest import read_manifest
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_prep.build_log import BuildLog
from vlm_prep.build_plan import BuildPlan, plan_build
from vlm_prep.changed_since import changes_since
from vlm_prep.compact_stage import compact_missing
from vlm_prep.convert_stage import convert_missing, prepare_sources
from vlm_prep.decode_stage import decode_missing
from vlm_prep.disk_room import check_writable
from vlm_prep.known_sources import forget_sources, remember_sources
from vlm_prep.measure_stage import load_renderers, measure_missing
from vlm_prep.mix import PreparedSource
from vlm_prep.needed_parts import first_parts, more_parts, taken_plan
from vlm_prep.publish_mix import publish_mix
from vlm_prep.rejections import check_rejections
from vlm_prep.select import Rules, Selection, open_index, read_rejections, select_samples
from vlm_prep.select_stage import count_train, index_files, population_of, selection_rules
from vlm_prep.source_files import publish_source
from vlm_prep.stores import stores_of
from vlm_prep.workplace import Workplace, workplace


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """Sources that are converted, measured and selected from."""

    prepared: list[PreparedSource]
    selection: Selection
    rejected: list[str]
    """What to say of the samples that conversion left out."""


def build_mix(config: Config, *, refresh: bool = False) -> Path:
    """The folder of the mix version that the TOML describes (in S3: of its copies), built or found. Raises UserError.

    What exists is whole: parts, lengths and the version appear by rename; current.json is swapped last. The same
    command after any interruption continues. Where only weights or selection differ from the last build, no source is
    asked unless ``refresh`` says so.
    """
    log = BuildLog()
    check_writable(config, stores_of(config))
    plan = _plan(config, refresh=refresh)
    for text in [*plan.notes, *changes_since(config, plan.sources)]:
        note(text)
    rules = selection_rules(config, plan)
    renderers = load_renderers(config, plan)
    log.note("plan", sources=len(plan.sources), parts=sum(len(source.parts) for source in plan.sources))
    with workplace(config) as place:
        if not plan.is_known:
            forget_sources(plan.stores.mix)
        indexed = _index_needed(config, plan, renderers, rules, place, log)
        if not plan.is_known:  # else these files are there, and what the source states of itself was not asked for
            for source in indexed.prepared:
                publish_source(source.plan, source.records, staging=place.staging)
        population = [text for source in indexed.prepared for text in source.plan.notes if text not in plan.notes]
        for text in [*indexed.rejected, *population, *indexed.selection.notes]:
            note(text)
        version = publish_mix(  # still at work in the shards: until the mix pins its parts, prune must leave them
            config, indexed.prepared, indexed.selection, store=plan.stores.mix, renderers=renderers, log=log
        )
        compact_missing(indexed.prepared, read_manifest(version), staging=place.staging)
    remember_sources(config, plan.resolved, indexed.prepared, store=plan.stores.mix)
    return version


def _plan(config: Config, *, refresh: bool) -> BuildPlan:
    """Raises ConfigError, StorageError, or DataError for a source that the next build is not to trust either."""
    try:
        return plan_build(config, refresh=refresh)
    except DataError:
        forget_sources(stores_of(config).mix)
        raise


def _index_needed(
    config: Config,
    plan: BuildPlan,
    renderers: Mapping[Profile, Renderer],
    rules: Rules,
    place: Workplace,
    log: BuildLog,
) -> Indexed:
    """Convert, measure and select; with ``convert = "needed"`` again until the parts cover the draws."""
    numbers = first_parts(config, plan.sources)
    while True:
        taken = tuple(taken_plan(one, numbers[one.source.name], seed=config.mix.seed) for one in plan.sources)
        indexed = _index(config, replace(plan, sources=taken), renderers, rules, place, log)
        more = more_parts(config, plan.sources, numbers, num_selected=count_train(indexed.selection.rows))
        if more == numbers:
            return indexed
        numbers = more


def _index(
    config: Config,
    plan: BuildPlan,
    renderers: Mapping[Profile, Renderer],
    rules: Rules,
    place: Workplace,
    log: BuildLog,
) -> Indexed:
    convert_missing(config, plan, place, log)
    prepared = prepare_sources(plan, renderers)
    with open_index(place.scratch, max_bytes=place.index_memory) as index:
        samples = [path for source in prepared for path in index_files(source, "samples.parquet")]
        rejected = check_rejections(config, prepared, read_rejections(index, samples))
        measure_missing(config, prepared, renderers, place, log)
        decode_missing(config, prepared, place, log)
        selection = select_samples(index, population_of(config, prepared), rules)
    return Indexed(prepared=prepared, selection=selection, rejected=rejected)
