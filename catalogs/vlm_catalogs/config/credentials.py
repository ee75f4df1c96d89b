"""Which file of credentials does the TOML give to what lies in S3? None is boto3's own chain."""

from pathlib import Path

from vlm_catalogs.config.sections import Config, CustomSection

USUAL_PATH = CustomSection().s3_credentials_path


def i4_credentials(config: Config) -> str | None:
    """For i4 sources; None where the TOML names no file and there is none at the usual place."""
    path = config.custom.s3_credentials_path
    return path if path != USUAL_PATH or Path(path).is_file() else None


def mix_credentials(config: Config) -> str | None:
    """For shards and mixes: those of [mix], else those of i4 sources."""
    return config.mix.s3_credentials_path or i4_credentials(config)
