"""What a path means: a mix version, converted sources, or the mix of a TOML; on this machine or in an object store."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.manifest import CURRENT_FILE, MANIFEST_FILE, SELECTION_FILE, current_mix
from vlm_catalogs.mix_place import bring_version, copies_of, find_current, mix_root
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.object_store import is_s3, parse_s3

EXPECTED = "expected a mix (mixes/<name> or a version in it), a shards folder (whole, or one dataset's), or a TOML"
PARTS = "parts"
RUN_FILE = "fingerprint.json"
RUN_CONFIG = "config.toml"
"""In the folder of a run."""
DEPTHS = (0, 1, 2)
"""How deep under a layout's, a dataset's or a shards folder its parts lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked about: one mix version, or the layouts of converted sources. Paths in S3 are those of copies."""

    copies: ObjectCopies
    mix: Path | None = None
    layouts: tuple[Path, ...] = ()
    """Without a mix: those that are there."""


def find_target(path: str, *, copies: ObjectCopies | None = None) -> Target:
    """What ``path`` is; of a mix in S3, manifest and selection are here then. ``copies``: instead of ``copies_for``.

    Raises ConfigError when it is nothing that can be asked about, DataError for a mix without a version, StorageError.
    """
    copies = copies or copies_for(path)
    if _is_toml(path):
        from vlm_catalogs.config import load_config

        return Target(copies=copies, mix=find_current(mix_root(load_config(Path(path)), copies), copies))
    return _target_in_store(path, copies) if is_s3(path) else _local_target(path, copies)


def copies_for(path: str, *, credentials: str | None = None) -> ObjectCopies:
    """Copies with the credentials of a TOML or a run; for other paths with boto3's own.

    ``credentials``: a file of them in their place. Raises ConfigError.
    """
    from vlm_catalogs.config import load_config

    settings = Path(path) / RUN_CONFIG if (Path(path) / RUN_FILE).is_file() else Path(path)
    return copies_of(load_config(settings) if _is_toml(str(settings)) else None, credentials=credentials)


def find_layouts(folder: Path) -> tuple[Path, ...]:
    """The folders ``<dataset>/<layout>`` that are, or stand under, a shards folder, a dataset's or a layout's."""
    found = (path.parent for depth in DEPTHS for path in folder.glob("*/" * depth + PARTS) if path.is_dir())
    return _of_one_depth(folder, found)


def layouts_in_store(folder: Path, copies: ObjectCopies) -> tuple[Path, ...]:
    """As ``find_layouts``, of what the store has."""
    names = (path.relative_to(folder).parts for path in copies.list(folder))
    found = {folder.joinpath(*parts[: parts.index(PARTS)]) for parts in names if PARTS in parts[: len(DEPTHS)]}
    return _of_one_depth(folder, found)


def _of_one_depth(folder: Path, layouts: Iterable[Path]) -> tuple[Path, ...]:
    visible = sorted(path for path in layouts if not any(name.startswith(".") for name in path.parts[-2:]))
    depths = {len(path.relative_to(folder).parts) for path in visible}
    return tuple(path for path in visible if len(path.relative_to(folder).parts) == min(depths))


def _is_toml(path: str) -> bool:
    return Path(path).suffix == ".toml" and Path(path).is_file()


def _local_target(path: str, copies: ObjectCopies) -> Target:
    folder = Path(path)
    if not folder.is_dir():
        raise ConfigError(f"{path}: {'no such file or folder' if not folder.exists() else 'a file'}; {EXPECTED}")
    if (folder / MANIFEST_FILE).is_file() or (folder / SELECTION_FILE).is_file():
        return Target(copies=copies, mix=folder)
    if (folder / CURRENT_FILE).is_file():
        return Target(copies=copies, mix=current_mix(folder))
    layouts = find_layouts(folder)
    if not layouts:
        raise ConfigError(f"{path}: neither a mix nor shards; {EXPECTED}")
    return Target(copies=copies, layouts=layouts)


def _target_in_store(url: str, copies: ObjectCopies) -> Target:
    folder = copies.path(parse_s3(url))
    if copies.bring_one(folder / MANIFEST_FILE) or copies.bring_one(folder / SELECTION_FILE):
        bring_version(folder, copies)
        return Target(copies=copies, mix=folder)
    if copies.bring_one(folder / CURRENT_FILE):
        return Target(copies=copies, mix=find_current(folder, copies))
    layouts = layouts_in_store(folder, copies)
    if not layouts:
        raise ConfigError(f"{url}: neither a mix nor shards; {EXPECTED}")
    return Target(copies=copies, layouts=layouts)
