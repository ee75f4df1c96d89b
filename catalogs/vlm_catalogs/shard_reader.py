"""Samples of one MDS shard file by index, from a memory map, checked before they are trusted.

The layout is that of ``streaming`` 0.13.0 (base/format/mds/writer.py): ``uint32 count``, ``uint32[count + 1]`` absolute
offsets, the JSON of the configuration, then per sample a uint32 length for each column and the columns' payloads.
"""

import mmap
import struct
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.sample import MDS_COLUMNS, MediaFacts, Sample

T = TypeVar("T")

COLUMN_NAMES = tuple(sorted(MDS_COLUMNS))
LENGTHS = struct.Struct(f"<{len(COLUMN_NAMES)}I")


class WrongColumns(DataError):
    """A shard whose columns are not those of ``MDS_COLUMNS``."""


class ShardReader:
    """A shard file, mapped read-only; its header is checked when it is opened.

    Raises DataError, naming the file, when the file is malformed, and StorageError when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map = _map_file(path)
        self._content = memoryview(self._map)
        try:
            self._offsets = self._checked_offsets()
        except BaseException:
            self.close()
            raise

    @property
    def num_samples(self) -> int:
        """How many samples the shard holds."""
        return len(self._offsets) - 1

    def read(self, index: int) -> Sample:
        """Sample ``index``, from 0; its media are a slice of the map, valid as long as somebody holds it.

        Raises DataError, naming file and index, for an index that is not there and for a sample that is malformed.
        """
        if not 0 <= index < self.num_samples:
            raise DataError(f"{self._path}: sample {index}: there are only {self.num_samples}")
        try:
            return _as_sample(_columns(self._content[self._offsets[index] : self._offsets[index + 1]]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{self._path}: sample {index}: damaged: {error}") from error

    def byte_range(self, index: int) -> tuple[int, int]:
        """Where sample ``index`` begins and ends in the file."""
        return self._offsets[index], self._offsets[index + 1]

    def verify(self, xxh3_128: str) -> None:
        """Compare the file with the hash that its part recorded. Raises DataError when they differ."""
        if (found := content_hash(self._content)) != xxh3_128:
            raise DataError(f"{self._path}: content hash {found}, but its part.json says {xxh3_128}: damaged")

    def close(self) -> None:
        """Let go of the file; media that were read stay valid, and the map ends with the last of them."""
        self._content.release()
        with suppress(BufferError):  # a sample still holds a slice
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _checked_offsets(self) -> tuple[int, ...]:
        """The count + 1 offsets, ascending from the header's end to the file's end."""
        size = len(self._content)
        if size < 4:
            self._fail(f"{size} bytes are no MDS shard")
        (count,) = struct.unpack_from("<I", self._content)
        header_bytes = 4 + 4 * (count + 1)
        if header_bytes > size:
            self._fail(f"the header of {count:,} samples needs {header_bytes:,} bytes, the file has {size:,}")
        offsets = struct.unpack_from(f"<{count + 1}I", self._content, 4)
        if any(begin > end for begin, end in pairwise(offsets)) or offsets[0] < header_bytes:
            self._fail("the offsets of its samples do not ascend")
        if offsets[-1] != size:
            self._fail(f"its samples end at byte {offsets[-1]:,}, the file at byte {size:,}")
        self._check_columns(bytes(self._content[header_bytes : offsets[0]]))
        return offsets

    def _check_columns(self, text: bytes) -> None:
        try:
            config = json_text.loads(text)
            found = dict(zip(config["column_names"], config["column_encodings"], strict=True))
        except (ValueError, TypeError, KeyError) as error:
            self._fail(f"its configuration is damaged: {error}")
        if tuple(found) != COLUMN_NAMES or found != MDS_COLUMNS:
            expected = dict(sorted(MDS_COLUMNS.items()))
            raise WrongColumns(f"{self._path}: damaged shard: expected the columns {expected}, got {found}")

    def _fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self._path}: damaged shard: {problem}")


class RangeReader:
    """A file that holds the bytes of a shard from ``begin`` on, mapped read-only: samples by their place in the shard.

    Without the shard's header its hash cannot be checked, so each medium is compared with its own.
    """

    def __init__(self, path: Path, *, begin: int) -> None:
        self._path = path
        self._begin = begin
        self._map = _map_file(path)
        self._content = memoryview(self._map)

    def read(self, begin: int, end: int) -> Sample:
        """The sample at the bytes [begin, end) of the shard. Raises DataError where it is damaged."""
        record = self._content[begin - self._begin : end - self._begin]
        return checked_sample(record, place=f"{self._path}: the sample at byte {begin:,}")

    def close(self) -> None:
        """Let go of the file, as ``ShardReader.close``."""
        self._content.release()
        with suppress(BufferError):
            self._map.close()


def checked_sample(record: memoryview, *, place: str) -> Sample:
    """The sample that ``record``, its bytes of a shard, holds. Raises DataError, naming ``place``, where it is damaged.

    Its media are compared with their hashes: without its shard that is all there is to compare.
    """
    try:
        sample = _as_sample(_columns(record))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{place}: damaged: {error}") from error
    for facts in sample.media_table:
        if content_hash(sample.medium(facts.name)) != facts.xxh3_128:
            raise DataError(f"{place}: {facts.name} differs from its hash")
    return sample


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DataError(f"{path}: damaged shard: it is empty") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened: {error.strerror}") from error


def _columns(record: memoryview) -> dict[str, memoryview]:
    """The payloads of one sample by column. Raises ValueError."""
    if len(record) < LENGTHS.size:
        raise ValueError(f"{len(record)} bytes")
    lengths = LENGTHS.unpack_from(record)
    if LENGTHS.size + sum(lengths) != len(record):
        raise ValueError(f"its columns take {LENGTHS.size + sum(lengths):,} bytes, it has {len(record):,}")
    ends = accumulate(lengths, initial=LENGTHS.size)
    return {name: record[begin:end] for name, (begin, end) in zip(COLUMN_NAMES, pairwise(ends), strict=True)}


def _as_sample(columns: dict[str, memoryview]) -> Sample:
    sample = Sample(
        sample_id=str(columns["sample_id"], "utf-8"),
        dataset=str(columns["dataset"], "utf-8"),
        messages=_loads(columns, "messages", list),
        alternatives=_loads(columns, "alternatives", list),
        media=columns["media"],
        media_table=tuple(MediaFacts.from_row(row) for row in _loads(columns, "media_table", list)),
        meta=_loads(columns, "meta", dict),
    )
    _check_media_ranges(sample)
    return sample


def _loads(columns: dict[str, memoryview], name: str, expected: type[T]) -> T:
    try:
        value = json_text.loads(columns[name])
    except ValueError as error:
        raise ValueError(f"column {name}: {error}") from error
    if not isinstance(value, expected):
        raise ValueError(f"column {name}: expected a {expected.__name__}, got {type(value).__name__}")
    return value


def _check_media_ranges(sample: Sample) -> None:
    for facts in sample.media_table:
        if facts.offset < 0 or facts.size < 0 or facts.offset + facts.size > len(sample.media):
            raise ValueError(f"medium {facts.name} ends outside of the {len(sample.media):,} bytes of media")
