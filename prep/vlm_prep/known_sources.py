"""Does a build only select anew? Then it takes the parts of the last build and asks no source (semantics A3).

What the last build found stands in ``mixes/<name>/sources.json``: nothing is lost where that file is gone, or none of
ours. A build that asks the sources removes it first, so that what one that fails has complained of is asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.config import Config, mix_settings
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.sample import SHARD_FORMAT
from vlm_catalogs.source import Source
from vlm_prep.mix import PreparedSource
from vlm_prep.part_store import PartStore
from vlm_prep.parts import PlannedPart
from vlm_prep.source_plan import SourcePlan, bring_records
from vlm_prep.stores import Stores

FILE = "sources.json"
OF_THE_POPULATION = ("weight", "origin", "repeat_time", "subsample")
"""Fields of a source that decide how much of it is used, not what it holds."""
OF_THE_SELECTION = ("custom.include_video", "mix.weight_unit", "mix.epoch_samples", "mix.epoch_tokens", "mix.seed")
"""Settings that are about the same samples, besides those of [mix.select]."""


def known_plans(config: Config, sources: Sequence[Source], stores: Stores) -> tuple[SourcePlan, ...] | None:
    """The plans of the last build, where nothing but weights and selection is asked otherwise than then; else None."""
    path = stores.mix.folder / FILE
    stores.mix.bring([path], below=stores.mix.folder)
    told = _read(path)
    if told is None or config.mix.convert != "all" or told["asked"] != _asked(config, sources):
        return None
    if told["selected_by"] == _selected_by(config, sources):
        return None  # the same command again looks whether the sources have changed
    found = [told["sources"].get(source.name) for source in sources]
    if not all(_is_found(one) for one in found):
        return None
    plans = tuple(_plan(stores.shards, source, one) for source, one in zip(sources, found, strict=True))
    for plan in plans:
        bring_records(plan.store, plan.layout, plan.parts)
    return None if any(plan.missing for plan in plans) else plans


def forget_sources(store: PartStore) -> None:
    """Have the next build ask the sources, unless this one gets to ``remember_sources``. Raises StorageError."""
    store.delete(store.folder / FILE)


def remember_sources(
    config: Config, sources: Sequence[Source], prepared: Sequence[PreparedSource], *, store: PartStore
) -> None:
    """Write down what this build found. Raises StorageError."""
    found = {
        one.name: {
            "format": one.plan.file_format,
            "layout": one.plan.layout.name,
            "parts": [part.name for part in one.plan.parts],
            "notes": list(one.plan.notes),
            "stated_samples": one.plan.stated_samples,
        }
        for one in prepared
    }
    told = {"asked": _asked(config, sources), "selected_by": _selected_by(config, sources), "sources": found}
    with store.staging() as staging:
        store.publish_text(json_text.dumps_indented(told), store.folder / FILE, staging=staging)


def _read(path: Path) -> dict[str, Any] | None:
    """What a build wrote; None where there is nothing that can be used."""
    if not path.is_file():
        return None
    try:
        told = json_text.loads(path.read_bytes())
    except ValueError:
        return None
    is_ours = isinstance(told, dict) and set(told) == {"asked", "selected_by", "sources"}
    return told if is_ours and isinstance(told["sources"], dict) else None


def _is_found(found: object) -> bool:
    """Is it what ``remember_sources`` writes of a source?"""
    if not isinstance(found, dict) or found.keys() != {"format", "layout", "parts", "notes", "stated_samples"}:
        return False
    texts = [found["format"], found["layout"]]
    for key in ("parts", "notes"):
        if not isinstance(found[key], list):
            return False
        texts += found[key]
    is_number = found["stated_samples"] is None or isinstance(found["stated_samples"], int)
    return bool(found["parts"]) and is_number and all(isinstance(text, str) for text in texts)


def _plan(store: PartStore, source: Source, found: Mapping[str, Any]) -> SourcePlan:
    return SourcePlan(
        source=source,
        file_format=found["format"],
        store=store,
        layout=store.folder / source.name / found["layout"],
        parts=tuple(PlannedPart(name=name, inputs=()) for name in found["parts"]),
        notes=tuple(found["notes"]),
        stated_samples=found["stated_samples"],
    )


def _asked(config: Config, sources: Sequence[Source]) -> str:
    """What is asked of the sources, and how it is stored and measured: hashed, because it holds paths."""
    settings = {key: value for key, value in mix_settings(config).items() if not _is_of_selection(key)}
    of_sources = [
        {key: value for key, value in asdict(source).items() if key not in OF_THE_POPULATION} for source in sources
    ]
    places = [config.mix.shards, config.mix.allow_missing_tars, config.policy.model_name_or_path, SHARD_FORMAT]
    return joined_hash([json_text.dumps(settings), json_text.dumps(of_sources), *places])


def _selected_by(config: Config, sources: Sequence[Source]) -> str:
    settings = {key: value for key, value in mix_settings(config).items() if _is_of_selection(key)}
    weights = [{key: value for key, value in asdict(source).items() if key != "origin"} for source in sources]
    return joined_hash([json_text.dumps(settings), json_text.dumps(weights)])


def _is_of_selection(key: str) -> bool:
    return key.startswith("mix.select.") or key in (*OF_THE_SELECTION, "mix.source")
