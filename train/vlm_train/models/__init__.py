"""The model families: ``load_family`` is the one way in."""

from typing import TYPE_CHECKING

from vlm_catalogs.errors import ConfigError

if TYPE_CHECKING:
    from vlm_train.models.family import Family

GRID_TOWER = ("qwen3_vl", "qwen3_vl_moe", "cosmos3_edge")
OMNI = ("nemotron_h_omni",)


def load_family(
    model: str, model_type: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> "Family":
    """The family of ``model_type`` with the processor of ``model``, a folder or a hub name; loads no weights.

    Raises ConfigError for a model type that is not built, and for a model without a processor.
    """
    # Imported here: torch and transformers take seconds, and a wrong TOML must answer within one.
    from vlm_train.models.grid_tower import GridTowerFamily
    from vlm_train.models.nemotron_omni import NemotronOmni
    from vlm_train.models.pretrained import read_config, read_processor

    if model_type not in GRID_TOWER + OMNI:
        known = ", ".join(GRID_TOWER + OMNI)
        raise ConfigError(f"{model}: model_type {model_type!r} cannot be trained here; these can: {known}")
    config = read_config(model, revision=revision, trust_remote_code=trust_remote_code)
    if config.model_type != model_type:
        raise ConfigError(f"{model}: its config.json says model_type {config.model_type!r}, not {model_type!r}")
    processor = read_processor(model, revision=revision, trust_remote_code=trust_remote_code)
    return (NemotronOmni if model_type in OMNI else GridTowerFamily)(config, processor)
