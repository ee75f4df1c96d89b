"""What a path means to verification: a mix version, converted sources, or the mix of a TOML."""

from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.manifest import current_mix

EXPECTED = "expected a mix (mixes/<name> or a version in it), a shards folder (whole, or one dataset's), or a TOML"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be verified: one mix version, or the layouts of converted sources."""

    mix: Path | None = None
    layouts: tuple[Path, ...] = ()


def find_target(path: str) -> Target:
    """What ``path`` is. Raises ConfigError when it is nothing that can be verified, DataError for a mix without one."""
    if path.startswith("s3://"):
        raise ConfigError(f"{path}: verification in S3 is not built yet; verify a local copy")
    folder = Path(path)
    if folder.is_file() and folder.suffix == ".toml":
        return Target(mix=_mix_of_config(folder))
    if not folder.is_dir():
        raise ConfigError(f"{path}: {'no such file or folder' if not folder.exists() else 'a file'}; {EXPECTED}")
    if (folder / "manifest.json").is_file() or (folder / "selection.parquet").is_file():
        return Target(mix=folder)
    if (folder / "current.json").is_file():
        return Target(mix=current_mix(folder))
    layouts = find_layouts(folder)
    if not layouts:
        raise ConfigError(f"{path}: neither a mix nor shards; {EXPECTED}")
    return Target(layouts=layouts)


def find_layouts(folder: Path) -> tuple[Path, ...]:
    """The folders ``<dataset>/<layout>`` that are, or stand under, a shards folder, a dataset's or a layout's."""
    for pattern in ("parts", "*/parts", "*/*/parts"):
        found = [path.parent for path in sorted(folder.glob(pattern)) if path.is_dir()]
        layouts = tuple(path for path in found if not any(name.startswith(".") for name in path.parts[-2:]))
        if layouts:
            return layouts
    return ()


def _mix_of_config(path: Path) -> Path:
    from vlm_catalogs.config import load_config

    config = load_config(path)
    return current_mix(Path(config.mix.root) / config.mix_name)
