"""Names and markers of what lies on disk under ``shards/``: the one place that knows them (semantics A1, A4)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.field_types import check_fields
from vlm_catalogs.hashing import file_hash

PART_FILE = "part.json"
MOVE_AWAY = "the part is damaged: move its folder away and build again"
DELETE_OBJECTS = "the part is damaged: delete all objects of its folder, part.json first, and build again"
"""The same in an object store: a copy that is moved away would be made anew from the damaged object."""
COMPACTED = "compacted"
INDEX_TABLES = ("samples.parquet", "media.parquet", "texts.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of a part by content."""

    name: str
    bytes: int
    xxh3_128: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """What ``part.json`` says: written last, so it marks a whole part; holds no clock, host, pid or absolute path."""

    name: str
    dataset: str
    shard_format: int
    inputs: tuple[dict[str, Any], ...]
    """Each input by name, bytes and content id (semantics A3)."""
    num_kept: int
    num_rejected: int
    shards: tuple[StoredFile, ...]
    shard_samples: tuple[int, ...]
    """Samples per shard, in order."""
    tables: tuple[StoredFile, ...]
    num_out_of_order: int = 0
    """i4: samples whose members stand in another order in one tar than in another; written only where there are any."""

    def as_json(self) -> str:
        """The text of part.json."""
        fields = asdict(self)
        if not self.num_out_of_order:
            del fields["num_out_of_order"]
        return json_text.dumps_indented(fields)


def shard_name(number: int) -> str:
    """The file name of a part's shard, such as ``shard.00000.mds``."""
    return f"shard.{number:05d}.mds"


def part_folder(layout: Path, part: str) -> Path:
    """Where a part lies under ``shards/<dataset>/<layout>``."""
    return layout / "parts" / part


def compacted_folder(layout: Path, name: str = "") -> Path:
    """Where a table of many parts as one file lies under ``shards/<dataset>/<layout>``; without a name where all do."""
    return layout / COMPACTED / name


def read_part(folder: Path, *, shown: Callable[[Path], str] = str, advice: str = MOVE_AWAY) -> PartRecord:
    """The record of a whole part. Raises DataError when part.json is missing or damaged.

    ``shown`` names a path for people, ``advice`` is what to do about a damaged part.
    """
    path = folder / PART_FILE
    if not path.is_file():
        raise DataError(f"{shown(path)}: missing, so this part is not whole; run vlm-prep build-mix again")
    try:
        fields = json_text.loads(path.read_bytes())
        for name in ("shards", "tables"):
            fields[name] = tuple(StoredFile(**file) for file in fields[name])
        record = PartRecord(
            **{**fields, "inputs": tuple(fields["inputs"]), "shard_samples": tuple(fields["shard_samples"])}
        )
        check_fields(record)
        return record
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{shown(path)}: {error}; {advice}") from error


def check_stored(
    folder: Path,
    file: StoredFile,
    *,
    by_content: bool,
    shown: Callable[[Path], str] = str,
    advice: str = MOVE_AWAY,
) -> None:
    """See that a file of a part is there, by its size or by its hash too. Raises DataError as ``read_part``."""
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.bytes:
        raise DataError(f"{shown(path)}: expected {file.bytes:,} bytes; {advice}")
    if by_content and file_hash(path) != file.xxh3_128:
        raise DataError(f"{shown(path)}: its content is not what {PART_FILE} says; {advice}")
