"""Where do mixes and shards lie? On this machine, or in an object store, whose index files are copied here to be read.

A path of what lies in a store is that of its copy. Manifests name shards relative to the mix, and by s3:// address
where the two lie apart.
"""

import fcntl
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.config.credentials import mix_credentials
from vlm_catalogs.config.sections import MixSection
from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import PART_FILE, part_folder, read_part
from vlm_catalogs.manifest import (
    AUDIT_FILE,
    CURRENT_FILE,
    MANIFEST_FILE,
    SELECTION_FILE,
    Manifest,
    MixDataset,
    PinnedPart,
    current_mix,
)
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.object_store import ObjectStore, is_s3, parse_s3, read_credentials

LOCK_FILE = ".lock"


def copies_of(config: Config | None, *, credentials: str | None = None) -> ObjectCopies:
    """Copies for the places of a TOML; without one boto3's own credentials and the usual folder.

    ``credentials``: a file of them in the place of the TOML's. Raises ConfigError for one that is none.
    """
    folder = (config.mix if config else MixSection()).s3_cache
    if credentials is not None:
        read_credentials(Path(credentials))  # said now, though nothing may lie in S3
    elif config is not None:
        credentials = mix_credentials(config)
    return ObjectCopies(objects=ObjectStore(credentials), folder=Path(folder).resolve())


def local_path(place: str, copies: ObjectCopies) -> Path:
    """The path of a place: itself, or that of its copies. Raises ConfigError for an address without a bucket."""
    return copies.path(parse_s3(place)) if is_s3(place) else Path(place)


def mix_root(config: Config, copies: ObjectCopies) -> Path:
    """The folder of the TOML's mix, with its versions in it."""
    return local_path(config.mix.root, copies) / config.mix_name


def find_current(root: Path, copies: ObjectCopies) -> Path:
    """The current version of the mix at ``root``, its manifest and selection here. Raises DataError, StorageError."""
    if copies.has_place_for(root) and not copies.bring_one(root / CURRENT_FILE):
        raise DataError(f"{copies.shown(root / CURRENT_FILE)}: no mix has been built here; run vlm-prep build-mix")
    version = current_mix(root)
    bring_version(version, copies)
    return version


def bring_version(version: Path, copies: ObjectCopies) -> None:
    """Have the manifest, the selection and the audit of a version here, as they are in the store."""
    if copies.has_place_for(version):
        names = (MANIFEST_FILE, SELECTION_FILE, AUDIT_FILE)
        copies.bring((version / name for name in names), below=version)


def layout_folder(version: Path, dataset: MixDataset, copies: ObjectCopies) -> Path:
    """``shards/<dataset>/<layout>`` of a dataset of a mix version, or where its copies stand; without ``..`` in it."""
    if is_s3(dataset.shards):
        return copies.path(parse_s3(dataset.shards))
    return (version / dataset.shards).resolve()  # messages name it


def shards_reference(layout: Path, version: Path, copies: ObjectCopies) -> str:
    """How a manifest names a layout: what ``layout_folder`` finds it by."""
    if copies.has_place_for(layout) and not _is_in_one_bucket(layout, version, copies):
        return str(copies.location(layout))
    return Path(os.path.relpath(layout.resolve(), version.resolve())).as_posix()


def pinned_parts(version: Path, manifest: Manifest, copies: ObjectCopies) -> list[tuple[Path, PinnedPart]]:
    """The parts that a mix pins, each with its folder or that of its copies."""
    return [
        (part_folder(layout_folder(version, dataset, copies), part.name), part)
        for dataset in manifest.datasets
        for part in dataset.parts
    ]


def bring_parts(
    parts: Iterable[tuple[Path, PinnedPart]],
    copies: ObjectCopies,
    *,
    tables: Sequence[str],
    without: Collection[str] = (),
) -> None:
    """Have part.json, lengths, facts and ``tables`` of parts here, those that lie in a store, but for ``without``.

    Raises DataError for an object that is missing or not what was pinned, StorageError.
    """
    remote = [(folder, part) for folder, part in parts if copies.has_place_for(folder)]
    copies.bring_pinned((folder / PART_FILE, part.part_json_xxh3_128) for folder, part in remote)
    copies.bring_pinned(
        (folder / name, xxh3_128)
        for folder, part in remote
        for name, xxh3_128 in ((part.lengths, part.lengths_xxh3_128), (part.decoded, part.decoded_xxh3_128))
        if name is not None and xxh3_128 is not None and name not in without
    )
    copies.bring_pinned(
        (folder / file.name, file.xxh3_128)
        for folder, _ in remote
        for file in (read_part(folder).tables if tables else ())
        if file.name in tables and file.name not in without
    )


@contextmanager
def copying_alone(copies: ObjectCopies) -> Iterator[None]:
    """Within it no other process of this machine is in here: what one has copied, the next finds."""
    copies.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(copies.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_in_one_bucket(one: Path, other: Path, copies: ObjectCopies) -> bool:
    return copies.has_place_for(other) and copies.location(one).bucket == copies.location(other).bucket
