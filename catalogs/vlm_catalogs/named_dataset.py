"""What does a ``dataset.name`` of a TOML stand for? A file, a folder, or a catalogue of several."""

from pathlib import Path

from vlm_catalogs.config.sections import Config, MixSource
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.json_catalog import is_json_catalog
from vlm_catalogs.toml_catalog import FileDatasets, expand_sources, read_catalog


def read_named(config: Config, key: str, name: str) -> FileDatasets:
    """The datasets that ``name``, the value of ``key``, stands for; none where it is empty. Raises ConfigError."""
    if not name:
        return FileDatasets(sources=())
    where = config.where(key)
    path = Path(name)
    if not path.exists():
        raise ConfigError(
            f"{where}: {key}: no file or folder {name!r}; datasets of a hub are not built yet: download it and "
            "name the folder (a relative path starts from the working directory)"
        )
    if (path.suffix == ".toml" and path.is_file()) or is_json_catalog(path):
        return read_catalog(path, named_by=where)
    entry = MixSource(name=_name_of(path), path=name, line=config.lines.get(key, 0))
    return expand_sources([entry], str(config.path))


def _name_of(path: Path) -> str:
    """A dataset is called like its folder or its file."""
    place = path.resolve()
    return place.stem if place.is_file() else place.name
