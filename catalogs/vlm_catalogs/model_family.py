"""Which model family does a TOML name? By config.json's model_type; only where there is none, by the name."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlm_catalogs.errors import ConfigError

FamilyName = Literal["qwen3_vl", "nemotron_vl"]

FAMILY_OF_MODEL_TYPE: dict[str, FamilyName] = {
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl",
    "nemotron_h_omni": "nemotron_vl",
    "cosmos3_edge": "nemotron_vl",
}
FAMILY_OF_NAME: tuple[tuple[str, FamilyName], ...] = (
    (r"qwen3[-_.]?vl", "qwen3_vl"),
    (r"nemotron.*omni|nemotron[-_.]h[-_.]omni|nemotron.*[-_.]vl\b|nemotron[-_.]vl", "nemotron_vl"),
    (r"cosmos[-_.]?3[-_.]?edge", "nemotron_vl"),
)
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""How the config.json of a model, or a part of it, may call the number of experts of a layer."""
TITLES: dict[FamilyName, str] = {"qwen3_vl": "Qwen3-VL", "nemotron_vl": "Nemotron-VL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """The family of a model, and how that is known."""

    family: FamilyName
    model_type: str | None
    """None when only the name was there to go by."""
    decided_by: Literal["config.json", "name"]
    num_experts: int | None = None
    """Experts of each layer that has any, 0 for a model without; None where there is no config.json."""

    @property
    def title(self) -> str:
        """The family's name for people, such as ``Qwen3-VL``."""
        return TITLES[self.family]


def find_family(model: str, *, revision: str | None = None) -> ModelFamily:
    """The family of a model folder or hub id. Raises ConfigError when it is none that can be trained here."""
    config_path = _config_path(model, revision or "main")
    if config_path is None:
        return _family_of_name(model)
    model_type, num_experts = _read_model_type(config_path)
    if model_type not in FAMILY_OF_MODEL_TYPE:
        raise ConfigError(
            f"{config_path}: model_type {model_type!r} is none of {', '.join(FAMILY_OF_MODEL_TYPE)}; "
            "name a model of one of these"
        )
    return ModelFamily(
        family=FAMILY_OF_MODEL_TYPE[model_type],
        model_type=model_type,
        decided_by="config.json",
        num_experts=num_experts,
    )


def _config_path(model: str, revision: str) -> Path | None:
    """The config.json of a model folder, or of a hub id in the local hub cache."""
    local = Path(model) / "config.json"
    if local.is_file():
        return local
    if Path(model).is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return None
    return _cached_config_path(model, revision)


def _cached_config_path(model: str, revision: str) -> Path | None:
    """Where the hub's own clients keep a downloaded config.json; asked of the disk only, so that nothing waits."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    folder = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{model.replace('/', '--')}"
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    cached = folder / "snapshots" / commit / "config.json"
    return cached if cached.is_file() else None


def _read_model_type(config_path: Path) -> tuple[str, int]:
    """The model_type, and how many experts a layer has."""
    try:
        content = json.loads(config_path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{config_path}: cannot be read as JSON: {error}; is the model folder whole?") from error
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(model_type, str):
        raise ConfigError(f"{config_path}: no model_type in it; is this a model folder of transformers?")
    parts = [content, *(part for part in content.values() if isinstance(part, dict))]
    counts = [part.get(key) for part in parts for key in EXPERT_COUNTS]
    return model_type, max((count for count in counts if isinstance(count, int)), default=0)


def _family_of_name(model: str) -> ModelFamily:
    for pattern, family in FAMILY_OF_NAME:
        if re.search(pattern, model.lower()):
            return ModelFamily(family=family, model_type=None, decided_by="name")
    raise ConfigError(
        f"{model!r}: there is no config.json at that path and the name tells no family; "
        "give a model folder, or a name with Qwen3-VL, Nemotron-...-Omni or Cosmos3-Edge in it"
    )
