"""The TOML that both commands take: its sections, its loader, and what they say about it."""

from vlm_catalogs.config.loader import load_config
from vlm_catalogs.config.mode import describe_mode, mix_settings
from vlm_catalogs.config.sections import Config, MixSource

__all__ = ["Config", "MixSource", "describe_mode", "load_config", "mix_settings"]
