"""Normal datasets in S3: their files are copied once below ``<shards>/.mirror`` and read there like any others.

What the copy holds stands in ``objects.json`` beside it (key -> ETag): the next build copies only what has changed, and
removes what is gone. So a source has the same parts wherever it lies.
"""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.object_store import ObjectStore, S3Location, StoredObject, is_s3, parse_s3
from vlm_catalogs.source import FileSource, Source
from vlm_prep.s3_inputs import objects_below
from vlm_prep.staging import writing

FOLDER = ".mirror"
COPIED_FILE = "objects.json"
COPIES_AT_ONCE = 8


def local_source(source: Source, shards: Path) -> Source:
    """The source with paths on the local disk; what lies in S3 is copied first.

    Raises ConfigError for an address without objects, DataError or StorageError when they cannot be copied.
    """
    if not isinstance(source, FileSource):
        return source
    root = source.media_root
    return replace(
        source,
        path=str(_mirrored(source, source.path, shards)) if is_s3(source.path) else source.path,
        media_root=str(_mirrored(source, root, shards)) if root is not None and is_s3(root) else root,
    )


def _mirrored(source: FileSource, url: str, shards: Path) -> Path:
    """Where the copy of a folder, or of a single object, lies."""
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
    copy = shards / FOLDER / joined_hash([at.bucket, at.key])
    files = copy / "files"
    with writing(files):
        files.mkdir(parents=True, exist_ok=True)
    _update(store, folder, files, {key: one for key, one in wanted.items() if key and not key.endswith("/")})
    return files / single if single else files


def _update(store: ObjectStore, folder: S3Location, files: Path, wanted: Mapping[str, StoredObject]) -> None:
    record = files.parent / COPIED_FILE
    copied: dict[str, str] = json_text.loads(record.read_bytes()) if record.is_file() else {}
    for key in copied.keys() - wanted.keys():
        (files / key).unlink(missing_ok=True)
    kept = {
        key: etag
        for key, etag in copied.items()
        if key in wanted and etag == wanted[key].etag and _size(files / key) == wanted[key].bytes
    }
    missing = {key: one for key, one in wanted.items() if key not in kept}
    _check_room(files, sum(one.bytes for one in missing.values()))

    def copy(key: str) -> str:
        path = files / key
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(folder / key, path, etag=missing[key].etag)
        return key

    with ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="mirror") as pool:
        for key in pool.map(copy, missing):
            kept[key] = missing[key].etag
    with writing(record):
        record.write_text(json_text.dumps(dict(sorted(kept.items()))))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StorageError(f"{folder}: {num_bytes / 1e9:,.1f} GB are to be copied here, {free / 1e9:,.1f} GB are free")
