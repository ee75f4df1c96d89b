"""Normal datasets in S3: their files are copied once below ``<shards>/.mirror`` and read there like any others.

What the copy holds stands in ``objects.json`` beside it (key -> ETag): the next build copies only what has changed, and
removes what is gone. So a source has the same parts wherever it lies.
"""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.leftovers import remove_leftovers
from vlm_catalogs.object_store import ObjectStore, S3Location, StoredObject, is_s3, parse_s3
from vlm_catalogs.source import FileSource, Source
from vlm_prep.s3_inputs import objects_below
from vlm_prep.staging import writing

FOLDER = ".mirror"
COPIED_FILE = "objects.json"
COPIES_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ToCopy:
    """What of a source is not on the local disk yet."""

    source: Source
    num_objects: int
    bytes: int


def local_source(source: Source, shards: Path) -> Source:
    """The source with paths on the local disk; what lies in S3 is copied first.

    Raises ConfigError for an address without objects, DataError or StorageError when they cannot be copied.
    """
    if not isinstance(source, FileSource):
        return source
    mirrors = {url: _look(source, url, shards) for url in _addresses(source)}
    for mirror in mirrors.values():
        _copy(mirror)
    local = {url: str(mirror.path) for url, mirror in mirrors.items()}
    root = source.media_root
    return replace(
        source,
        path=local.get(source.path, source.path),
        media_root=local.get(root, root) if root is not None else None,
    )


def still_to_copy(source: Source, shards: Path) -> ToCopy:
    """What ``local_source`` would copy now, from a listing alone. Raises as ``local_source``."""
    urls = _addresses(source) if isinstance(source, FileSource) else []
    missing = [one for url in urls for one in _look(source, url, shards).missing().values()]
    return ToCopy(source=source, num_objects=len(missing), bytes=sum(one.bytes for one in missing))


def _addresses(source: FileSource) -> list[str]:
    return [url for url in dict.fromkeys((source.path, source.media_root)) if url is not None and is_s3(url)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mirror:
    """A folder in S3, or one object of it, as a listing shows it, and where its copy lies."""

    store: ObjectStore
    folder: S3Location
    wanted: Mapping[str, StoredObject]
    """Key relative to the folder -> object."""
    files: Path
    single: str | None

    @property
    def path(self) -> Path:
        """The copy of what was named."""
        return self.files / self.single if self.single else self.files

    @property
    def record(self) -> Path:
        """What says what the copy holds."""
        return self.files.parent / COPIED_FILE

    def copied(self) -> dict[str, str]:
        """Key -> ETag of what was copied before."""
        try:
            found = json_text.loads(self.record.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}  # a record that was cut short only has all copied again
        return found if isinstance(found, dict) else {}

    def missing(self) -> dict[str, StoredObject]:
        """What is wanted and is not there as it should be."""
        copied = self.copied()
        return {
            key: one
            for key, one in self.wanted.items()
            if copied.get(key) != one.etag or _size(self.files / key) != one.bytes
        }


def _look(source: Source, url: str, shards: Path) -> _Mirror:
    at, store = parse_s3(url), ObjectStore(source.credentials_path)
    wanted = objects_below(store, at)
    folder, single = at, None
    if not wanted and (found := store.head(at)) is not None:
        single = at.key.rpartition("/")[2]
        folder = S3Location(bucket=at.bucket, key=at.key.rpartition("/")[0])
        wanted = {single: found}
    if not wanted:
        raise ConfigError(f"{source.origin}: {source.name}: there is nothing at {url}")
    outside = next((key for key in wanted if ".." in Path(key).parts or key.startswith("/")), None)
    if outside is not None:
        raise DataError(f"{folder / outside}: this name leads out of its folder; rename the object")
    return _Mirror(
        store=store,
        folder=folder,
        wanted={key: one for key, one in wanted.items() if key and not key.endswith("/")},
        files=shards / FOLDER / joined_hash([at.bucket, at.key]) / "files",
        single=single,
    )


def _copy(mirror: _Mirror) -> None:
    """Bring the copy up to date."""
    with writing(mirror.files):
        mirror.files.mkdir(parents=True, exist_ok=True)
    remove_leftovers(mirror.files.parent)
    copied, missing = mirror.copied(), mirror.missing()
    for key in copied.keys() - mirror.wanted.keys():
        (mirror.files / key).unlink(missing_ok=True)
    _check_room(mirror.files, sum(one.bytes for one in missing.values()))

    def copy(key: str) -> str:
        path = mirror.files / key
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            at = mirror.folder / key
            mirror.store.download(at, path, etag=missing[key].etag, partials=mirror.files.parent)
        return key

    with ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="mirror") as pool:
        list(pool.map(copy, missing))
    with writing(mirror.record):
        mirror.record.write_text(json_text.dumps({key: one.etag for key, one in sorted(mirror.wanted.items())}))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StorageError(f"{folder}: {num_bytes / 1e9:,.1f} GB are to be copied here, {free / 1e9:,.1f} GB are free")
