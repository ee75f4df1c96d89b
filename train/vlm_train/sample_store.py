"""One sample of a mix by its place: shards are memory-mapped and compared with their hashes before they are trusted.

Local shards are read where they lie. Those of an object store come through a cache (see remote_shards).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError, StorageError, UserError
from vlm_catalogs.layout import read_part, shard_name
from vlm_catalogs.object_store import S3Location
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import RangeReader, ShardReader
from vlm_train.fetch_plan import ShardKey
from vlm_train.open_mix import OpenMix
from vlm_train.planned_rows import PlannedRow
from vlm_train.remote_shards import RemoteShards
from vlm_train.shard_cache import Piece

Reader = ShardReader | RangeReader
MAX_OPEN_SHARDS = 128
"""Maps held at a time; each takes a file descriptor."""


@dataclass(slots=True)
class RemoteReads:
    """How the samples of an object store were read since somebody looked."""

    num_samples: int = 0
    num_waited: int = 0
    """Samples whose shard was not in the cache when they were asked for."""
    num_bytes: int = 0
    """Bytes downloaded, ahead of time or not."""


class SampleStore:
    """Reads samples of a mix by their place. A shard is compared with its hash when it is first opened."""

    def __init__(self, mix: OpenMix, remote: RemoteShards | None = None) -> None:
        self._mix = mix
        self._remote = remote
        self._open: OrderedDict[ShardKey | Piece, Reader] = OrderedDict()
        self._verified: set[ShardKey] = set()
        self._reads = RemoteReads()
        self._lock = threading.Lock()

    @property
    def remote_datasets(self) -> frozenset[str]:
        """Datasets whose shards come over the network."""
        return frozenset(self._mix.remote)

    def read(self, row: PlannedRow, *, aside: bool = False) -> Sample:
        """The sample of ``row``. Raises DataError, with its lineage, when the shard is not what the mix pins.

        ``aside`` is for rows of no plan, such as held-out samples: nothing that a plan reads leaves the cache for them.
        """
        key = ShardKey(row.dataset, row.part, row.shard)
        if self._remote is not None and self._remote.holds(row.dataset):
            read = self._read_aside if aside else self._read_remote
            sample = read(self._remote, key, row)
        else:
            sample = self._read_local(key, row)
        if (sample.dataset, sample.sample_id) != (row.dataset, row.sample_id):
            found = f"{sample.dataset}/{sample.sample_id}"
            raise DataError(f"{self._shard(row)}: sample {row.index_in_shard} is {found}, planned was {row.name}")
        return sample

    def lineage(self, row: PlannedRow) -> str:
        """Where the sample of ``row`` came from."""
        source, member = self.origin(row)
        return f"sample {row.name} came from {f'{source} {member}'.strip() if source else 'a source unknown'}"

    def origin(self, row: PlannedRow) -> tuple[str, str]:
        """The tar or file that the sample of ``row`` came from, and the member in it; empty where that is unknown."""
        found = next((one for one in self._same_shard(row) if one["sample_id"] == row.sample_id), None)
        return (found["source_uri"] or "", found["member"] or "") if found else ("", "")

    def plan(self, table: pa.Table, *, epoch: int, first_step: int) -> None:
        """What of an epoch table is read next, from ``first_step`` on. Raises as ``RemoteShards.plan``."""
        if self._remote is not None:
            self._remote.plan(table, epoch=epoch, first_step=first_step)

    def reached(self, *, epoch: int, step: int) -> None:
        """All rows before this step have been read."""
        if self._remote is None:
            return
        self._remote.reached(epoch=epoch, step=step)
        with self._lock:  # the room of a file that has left the cache is free once nobody maps it
            gone = [key for key in self._open if isinstance(key, Piece) and self._remote.trusted_path(key) is None]
            for key in gone:
                self._open.pop(key).close()

    def take_reads(self) -> RemoteReads | None:
        """How samples were read since the last call; None where all shards are local."""
        if self._remote is None:
            return None
        with self._lock:
            taken, self._reads = self._reads, RemoteReads()
        taken.num_bytes = self._remote.take_traffic().num_bytes
        return taken

    def close(self) -> None:
        """Let go of all shards."""
        if self._remote is not None:
            self._remote.close()
        while self._open:
            self._open.popitem()[1].close()

    def _read_local(self, key: ShardKey, row: PlannedRow) -> Sample:
        with self._lock:
            reader = self._opened(key) or self._remember(key, self._open_local(key, row))
            assert isinstance(reader, ShardReader)
            try:
                return reader.read(row.index_in_shard)
            except DataError as error:
                raise DataError(f"{error}; {self._damage(row)}") from error

    def _open_local(self, key: ShardKey, row: PlannedRow) -> ShardReader:
        try:
            reader = ShardReader(self._mix.part(row.dataset, row.part) / shard_name(row.shard))
            if key not in self._verified:
                reader.verify(read_part(self._mix.part(row.dataset, row.part)).shards[row.shard].xxh3_128)
                self._verified.add(key)
        except (DataError, StorageError) as error:
            raise type(error)(f"{error}; {self._damage(row)}") from error
        return reader

    def _read_remote(self, remote: RemoteShards, key: ShardKey, row: PlannedRow) -> Sample:
        """The sample from the cache; other threads read on while its shard comes."""
        is_waiting = False
        try:
            piece = remote.piece(key, row.index_in_shard)
            while True:
                with self._lock:
                    reader = self._opened(piece) or self._open_cached(remote, piece)
                    if reader is not None:
                        self._reads.num_samples += 1
                        self._reads.num_waited += is_waiting
                        if isinstance(reader, ShardReader):
                            return reader.read(row.index_in_shard)
                        return reader.read(*remote.span(key, row.index_in_shard))
                is_waiting = True
                remote.bring(piece)
        except DataError as error:
            raise DataError(f"{error}; {self._damage(row)}") from error
        except StorageError as error:
            raise StorageError(f"{error}; {row.name} is read from there; then go on with --resume") from error

    def _read_aside(self, remote: RemoteShards, key: ShardKey, row: PlannedRow) -> Sample:
        """The sample from the cache where it is or has room there, else past it."""
        try:
            piece = remote.aside(key, row.index_in_shard)
            if remote.trusted_path(piece) is not None or remote.bring_aside(piece):
                with self._lock:
                    reader = self._opened(piece) or self._open_cached(remote, piece)
                    if isinstance(reader, ShardReader):
                        return reader.read(row.index_in_shard)
                    if reader is not None:
                        return reader.read(*remote.span(key, row.index_in_shard))
            return remote.fetch_alone(key, row.index_in_shard)
        except DataError as error:
            raise DataError(f"{error}; {self._damage(row)}") from error
        except StorageError as error:
            raise StorageError(f"{error}; {row.name} is read from there; then go on with --resume") from error

    def _open_cached(self, remote: RemoteShards, piece: Piece) -> Reader | None:
        """None where the cache does not have it, or another process has just needed the room."""
        path = remote.trusted_path(piece)
        if path is None:
            return None
        try:
            reader: Reader = ShardReader(path) if piece.is_whole else RangeReader(path, begin=piece.begin)
        except StorageError:
            if path.exists():
                raise
            return None
        return self._remember(piece, reader)

    def _opened(self, key: ShardKey | Piece) -> Reader | None:
        if key in self._open:
            self._open.move_to_end(key)
        return self._open.get(key)

    def _remember(self, key: ShardKey | Piece, reader: Reader) -> Reader:
        self._open[key] = reader
        if len(self._open) > MAX_OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return reader

    def _shard(self, row: PlannedRow) -> Path | S3Location:
        """Where the shard of ``row`` lies, for people."""
        if self._remote is not None and self._remote.holds(row.dataset):
            return self._remote.piece(ShardKey(row.dataset, row.part, row.shard), row.index_in_shard).at
        return self._mix.part(row.dataset, row.part) / shard_name(row.shard)

    def _damage(self, row: PlannedRow) -> str:
        """What a damaged shard takes with it, and what to do."""
        names = _some(one["sample_id"] for one in self._same_shard(row)) or "not known"
        at = self._mix.remote.get(row.dataset)
        folder = self._mix.part(row.dataset, row.part) if at is None else at / "parts" / row.part
        return (
            f"{self.lineage(row)}; samples of {row.dataset} in this shard: {names}; "
            f"move {folder} away and run vlm-prep build-mix to convert it again"
        )

    def _same_shard(self, row: PlannedRow) -> list[dict[str, Any]]:
        """The samples beside ``row``; none where the index is damaged too: the first damage is said all the same."""
        filters = [("shard", "=", row.shard), ("status", "=", "kept")]
        try:
            path = self._mix.samples_table(row.dataset, row.part)
            table = pq.read_table(path, columns=["sample_id", "source_uri", "member"], filters=filters)
        except (UserError, OSError, pa.ArrowException):
            return []
        return table.to_pylist()  # type: ignore[no-any-return]


def _some(names: Iterable[Any], limit: int = 5) -> str:
    every = [str(name) for name in names]
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
