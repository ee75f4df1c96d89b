"""MDS folders of any columns, as ``streaming.MDSWriter`` leaves them: the shards of index.json, their samples decoded.

A sample is a uint32 length for each column of no fixed size, then the columns' payloads in the order of the names
(streaming 0.13.0, base/format/mds/reader.py; encodings.py for what a payload is). Pickles are never loaded.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_prep.content_ids import map_file

INDEX_FILE = "index.json"
NUMBERS = {
    **{"int": "<q", "int8": "<b", "int16": "<h", "int32": "<i", "int64": "<q", "uint8": "<B", "uint16": "<H"},
    **{"uint32": "<I", "uint64": "<Q", "float16": "<e", "float32": "<f", "float64": "<d"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedShard:
    """One shard as index.json names it."""

    name: str
    path: Path
    num_samples: int


def read_index(folder: Path) -> list[IndexedShard]:
    """The shards of an MDS folder in order. Raises DataError when index.json or a shard is missing or another kind."""
    path = folder / INDEX_FILE
    if not path.is_file():
        raise DataError(f"{path}: missing; an MDS folder has it beside its shards")
    try:
        shards = [_indexed(folder, shard) for shard in json_text.loads(path.read_bytes())["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the index of an MDS folder: {error!r}") from error
    names = [shard.name for shard in shards]
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or names.count(name) > 1:
            raise DataError(f"{path}: shard {name!r} leads out of the folder, or stands there twice")
    for shard in shards:
        if not shard.path.is_file():
            raise DataError(f"{shard.path}: not there; compressed shards are not built yet: keep or write them raw")
    return shards


def is_mds_folder(path: Path) -> bool:
    """Does a folder have an index.json that lists shards?"""
    try:
        return isinstance(json_text.loads((path / INDEX_FILE).read_bytes())["shards"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _indexed(folder: Path, shard: dict[str, Any]) -> IndexedShard:
    if shard["format"] != "mds":
        raise ValueError(f"format {shard['format']!r}, expected mds")
    name = shard["raw_data"]["basename"]
    return IndexedShard(name=name, path=folder / name, num_samples=int(shard["samples"]))


class MdsShard:
    """One shard file, mapped. Raises DataError, naming the file, when it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = map_file(path)
        try:
            (count,) = struct.unpack_from("<I", self._content)
            self._offsets = struct.unpack_from(f"<{count + 1}I", self._content, 4)
            config = json_text.loads(self._content[8 + 4 * count : self._offsets[0]])
            self.encodings: dict[str, str] = dict(zip(config["column_names"], config["column_encodings"], strict=True))
            self._sizes = [size or 0 for size in config["column_sizes"]]
        except (struct.error, ValueError, KeyError, TypeError) as error:
            self._fail(str(error))
        if any(begin > end for begin, end in pairwise(self._offsets)) or self._offsets[-1] != len(self._content):
            self._fail(f"its samples end at byte {self._offsets[-1]:,}, the file at byte {len(self._content):,}")

    @property
    def num_samples(self) -> int:
        """How many samples the shard holds."""
        return len(self._offsets) - 1

    def samples(self) -> Iterator[dict[str, memoryview]]:
        """The payloads of each sample by column, in order, without a copy."""
        for index, (begin, end) in enumerate(pairwise(self._offsets)):
            record = self._content[begin:end]
            num_lengths = self._sizes.count(0)
            if 4 * num_lengths > len(record):
                self._fail(f"sample {index} has {len(record)} bytes")
            lengths = iter(struct.unpack_from(f"<{num_lengths}I", record))
            ends = [*accumulate((size or next(lengths) for size in self._sizes), initial=4 * num_lengths)]
            if ends[-1] != len(record):
                self._fail(f"the columns of sample {index} take {ends[-1]:,} bytes, it has {len(record):,}")
            yield {name: record[a:b] for name, (a, b) in zip(self.encodings, pairwise(ends), strict=True)}

    def _fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self._path}: not an MDS shard, or a damaged one: {problem}")


def is_json(encoding: str) -> bool:
    """Can JSON hold the values of that encoding?"""
    return encoding in ("str", "json", "str_int", "str_float") or encoding in NUMBERS


def decoder(encoding: str) -> Callable[[memoryview], Any] | None:
    """What turns a payload into a value, raising ValueError; None for encodings that are not read."""
    name = encoding.partition(":")[0]
    if name in NUMBERS:
        return lambda payload: _number(NUMBERS[name], payload)
    return {
        "str": lambda payload: str(payload, "utf-8"),
        "json": json_text.loads,
        "bytes": lambda payload: payload,
        "jpeg": lambda payload: payload,
        "png": lambda payload: payload,
        "str_int": lambda payload: int(str(payload, "utf-8")),
        "str_float": lambda payload: float(str(payload, "utf-8")),
        "list[jpeg]": lambda payload: _pieces(payload, begin=4),
        "list[png]": lambda payload: _pieces(payload, begin=4),
        "jpeg_array": lambda payload: _pieces(payload, begin=0),
    }.get(name)


def _number(layout: str, payload: memoryview) -> int | float:
    if struct.calcsize(layout) != len(payload):
        raise ValueError(f"a number of {len(payload)} bytes")
    value: int | float = struct.unpack(layout, payload)[0]
    return value


def _pieces(payload: memoryview, *, begin: int) -> list[memoryview]:
    """The files of a list: their count and their sizes, as uint32 from ``begin`` on, then the files."""
    try:
        (count,) = struct.unpack_from("<I", payload, begin)
        sizes = struct.unpack_from(f"<{count}I", payload, begin + 4)
    except struct.error as error:
        raise ValueError(f"a list of {len(payload)} bytes: {error}") from error
    ends = [*accumulate(sizes, initial=begin + 4 + 4 * count)]
    if ends[-1] != len(payload):
        raise ValueError(f"a list that ends at byte {ends[-1]:,} of {len(payload):,}")
    return [payload[a:b] for a, b in pairwise(ends)]
