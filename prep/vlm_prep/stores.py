"""The homes of the parts and of the mix that a TOML names."""

from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.mix_place import copies_of, local_path
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.part_store import LocalStore, PartStore
from vlm_prep.s3_store import S3Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Both homes, and the copies of what of them lies in S3."""

    copies: ObjectCopies
    shards: PartStore
    mix: PartStore
    """Its folder is that of the mix: versions, current.json."""


def stores_of(config: Config) -> Stores:
    """The homes that the TOML names."""
    copies = copies_of(config)
    return Stores(
        copies=copies,
        shards=store_at(local_path(config.mix.shards, copies), copies),
        mix=store_at(local_path(config.mix.root, copies) / config.mix_name, copies),
    )


def store_at(folder: Path, copies: ObjectCopies) -> PartStore:
    """The home that a folder is, or that the folder of its copies stands for."""
    return S3Store(copies, folder) if copies.has_place_for(folder) else LocalStore(folder)
