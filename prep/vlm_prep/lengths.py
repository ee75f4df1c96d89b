"""The lengths files of parts: measured once for each encoding, kept with the part."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_catalogs.render.settings import Profile
from vlm_catalogs.source import I4Source, Source
from vlm_prep.index_tables import write_table
from vlm_prep.measure import measure_part
from vlm_prep.staging import publish_file


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """One part to measure; crosses to worker processes."""

    folder: Path
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
    table = measure_part(task.folder, renderer_for(task.model, task.settings))
    staged = task.staging / f"{task.folder.name}-{task.fingerprint}.parquet"
    write_table(table, staged)
    publish_file(staged, task.folder / lengths_name(task.fingerprint))
