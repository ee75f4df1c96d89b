"""The lengths files of parts: measured once for each encoding, kept with the part."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vlm_catalogs.config import Config
from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_catalogs.render.settings import Profile
from vlm_catalogs.source import I4Source, Source
from vlm_prep.added_tables import publish_table
from vlm_prep.measure import measure_part
from vlm_prep.part_store import PartStore, check_content, read_record


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """One part to measure; crosses to worker processes."""

    folder: Path
    dataset: str
    store: PartStore
    """Where the part is kept."""
    model: str
    settings: RenderSettings
    fingerprint: str
    staging: Path


def profile_of(source: Source) -> Profile:
    """How the samples of a source are rendered."""
    return "i4" if isinstance(source, I4Source) else "normal"


def render_settings(config: Config, profile: Profile) -> RenderSettings:
    """The settings of rendering that a TOML asks for."""
    return RenderSettings(
        profile=profile,
        model_max_length=config.policy.model_max_length,
        length_policy=config.mix.length_policy,
        system_prompt=config.train.train_policy.system_prompt or None,
        trust_remote_code=config.policy.trust_remote_code,
        revision=config.policy.model_revision,
    )


def lengths_name(fingerprint: str) -> str:
    """Where the lengths of an encoding stand in a part."""
    return f"lengths/{fingerprint}.parquet"


@lru_cache(maxsize=2)
def renderer_for(model: str, settings: RenderSettings) -> Renderer:
    """The renderer, loaded once in each process."""
    return load_renderer(model, settings=settings)


def measure(task: MeasureTask) -> None:
    """Measure one part and publish its lengths. Raises DataError or StorageError."""
    record = read_record(task.folder, task.store)
    task.store.bring((task.folder / file.name for file in record.tables), below=task.folder)
    for file in record.tables:
        check_content(task.folder, file, task.store)
    table = measure_part(task.folder, renderer_for(task.model, task.settings))
    publish_table(table, task.folder / lengths_name(task.fingerprint), store=task.store, staging=task.staging)


def describe_shortened(selection: pa.Table) -> str:
    """What the length policy did to the selected samples of a dataset, for people; empty where it did nothing."""
    shortened = selection.filter(
        pc.and_(selection["selected"], pc.greater(selection["full_tokens"], selection["total_tokens"]))
    )
    if not shortened.num_rows:
        return ""
    before, after = (pc.sum(shortened[name]).as_py() for name in ("full_tokens", "total_tokens"))
    return f"{shortened.num_rows:,} samples are shortened to fit by mix.length_policy: {before:,} tokens to {after:,}"
