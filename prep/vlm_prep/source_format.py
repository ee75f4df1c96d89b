"""Which form does a normal source have, and which files are it? Decided by looking, unless the TOML says it."""

from collections.abc import Iterator
from pathlib import Path

from vlm_catalogs.errors import ConfigError, StorageError
from vlm_catalogs.source import FileSource
from vlm_prep.compressed import COMPRESSIONS, unpacked_name
from vlm_prep.mds_folder import is_mds_folder

SUFFIXES = {
    "jsonl": (".jsonl", ".ndjson"),
    "llava": (".json",),
    "parquet": (".parquet", ".pq"),
    "webdataset": (".tar",),
    "arrow": (".arrow",),
    "mds": (".mds",),
}
"""Format -> endings of its files."""
SIDE_FILES = {"dataset_info.json", "dataset_infos.json", "meta.json", "state.json", "dataset_dict.json"}
"""JSON that describes the files beside it; no data where there are other files."""


def source_root(source: FileSource) -> Path:
    """The folder that names in the source are relative to."""
    path = Path(source.path)
    return path if path.is_dir() else path.parent


def resolve_format(source: FileSource) -> str:
    """The format as named, or by looking at the files. Raises ConfigError when they leave a doubt."""
    if source.format in SUFFIXES:
        return source.format
    if source.format != "auto":
        known = ", ".join([*SUFFIXES, "auto"])
        raise ConfigError(f"{source.origin}: {source.name}: format {source.format!r}, expected one of {known}")
    found = _formats_inside(source)
    if len(found) == 1:
        return found[0]
    for name in SUFFIXES if not found else ():
        _check_compressed(source, name)
    if found:
        what = " and ".join(_pattern(name) for name in found) + " files"
    else:
        what = ", ".join(f"no {_pattern(name)}" for name in SUFFIXES) + " file"
    raise ConfigError(f"{source.origin}: {source.name}: {source.path} has {what}; say which with format = ...")


def find_files(source: FileSource, file_format: str) -> list[Path]:
    """The files of that format, ordered by name. Raises ConfigError when there is none."""
    files = _files(source, file_format)
    _check_compressed(source, file_format)
    if not files:
        suffixes = " or ".join(SUFFIXES[file_format])
        raise ConfigError(f"{source.origin}: {source.name}: {source.path} has no {suffixes} file")
    return files


def _formats_inside(source: FileSource) -> list[str]:
    if is_mds_folder(Path(source.path)):
        return ["mds"]  # whatever lies beside the shards
    files = {name: _files(source, name) for name in SUFFIXES}
    found = [name for name in SUFFIXES if files[name]]
    if len(found) > 1 and all(file.name in SIDE_FILES for file in files["llava"]):
        return [name for name in found if name != "llava"]
    return found


def _pattern(file_format: str) -> str:
    return f"*{SUFFIXES[file_format][0]}"


def _files(source: FileSource, file_format: str) -> list[Path]:
    path = Path(source.path)
    if not path.exists():
        raise ConfigError(f"{source.origin}: {source.name}: {source.path} does not exist")
    if path.is_file():
        is_named = source.format == file_format
        return [path] if is_named or path.suffix.lower() in SUFFIXES[file_format] else []
    found = [file for file in _below(path) if _is_data(file, file_format) and not _is_hidden(file, path)]
    _check_names(source, found)
    for file in found:
        if not file.is_file():  # left out silently, its samples would be
            what = "a link that leads nowhere" if file.is_symlink() else "neither a file nor a folder"
            raise ConfigError(f"{source.origin}: {source.name}: {file} is {what}; mend or remove it")
    return sorted(found, key=lambda file: file.relative_to(path).as_posix())


def _is_data(file: Path, file_format: str) -> bool:
    return file.suffix.lower() in SUFFIXES[file_format]


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def hidden_files(source: FileSource, file_format: str) -> list[Path]:
    """Files of that format whose name, or a folder's below the source, begins with a dot: caches, checkpoints of
    notebooks, what macOS leaves. They are no data, as for other tools."""
    path = Path(source.path)
    if path.is_file() or file_format == "mds":
        return []
    return [file for file in _below(path) if _is_data(file, file_format) and _is_hidden(file, path)]


def _check_compressed(source: FileSource, file_format: str) -> None:
    """Raise ConfigError for a compressed file of that format: its samples would be missing without a word.

    One that lies beside its plain form is a copy.
    """
    path = Path(source.path)
    for file in [path] if path.is_file() else _below(path):
        plain = unpacked_name(file.name)
        if plain is None or Path(plain[0]).suffix.lower() not in SUFFIXES[file_format]:
            continue
        if not (file.parent / plain[0]).exists():
            command = COMPRESSIONS[plain[1]][2]
            raise ConfigError(
                f"{source.origin}: {source.name}: {file} is compressed with {plain[1]}, which is not read; unpack it "
                f"({command} {file.name} > {plain[0]}) or move it away"
            )


def _below(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """What is below a folder and is no folder; links to folders are followed, but none back to where it stands in.

    Raises StorageError for a folder that cannot be read.
    """
    real = folder.resolve()
    around = above | {real, *real.parents}
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read: {error.strerror}") from error
    for path in inside:
        if not path.is_dir():
            yield path
        elif not path.is_symlink() or path.resolve() not in around:
            yield from _below(path, around)


def _check_names(source: FileSource, files: list[Path]) -> None:
    """Names become sample ids, so they must be text. Raises ConfigError."""
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError as error:
            shown = str(file).encode("utf-8", "surrogateescape")
            raise ConfigError(f"{source.origin}: {source.name}: {shown!r} is not UTF-8; rename the file") from error
