"""One sample of a mix by its place: shards are memory-mapped and compared with their hashes before they are trusted."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.layout import read_part, shard_name
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_train.open_mix import OpenMix
from vlm_train.planned_rows import PlannedRow

MAX_OPEN_SHARDS = 128
"""Maps held at a time; each takes a file descriptor."""


class SampleStore:
    """Reads samples of a mix by their place. A shard is compared with its hash when it is first opened."""

    def __init__(self, mix: OpenMix) -> None:
        self._mix = mix
        self._open: OrderedDict[tuple[str, str, int], ShardReader] = OrderedDict()
        self._verified: set[tuple[str, str, int]] = set()
        self._lock = threading.Lock()

    def read(self, row: PlannedRow) -> Sample:
        """The sample of ``row``. Raises DataError, with its lineage, when the shard is not what the mix pins."""
        with self._lock:
            reader = self._reader(row)
            try:
                sample = reader.read(row.index_in_shard)
            except DataError as error:
                raise DataError(f"{error}; {self._damage(row)}") from error
        if (sample.dataset, sample.sample_id) != (row.dataset, row.sample_id):
            found = f"{sample.dataset}/{sample.sample_id}"
            raise DataError(f"{self._shard(row)}: sample {row.index_in_shard} is {found}, planned was {row.name}")
        return sample

    def lineage(self, row: PlannedRow) -> str:
        """Where the sample of ``row`` came from."""
        origin = next((one for one in self._same_shard(row) if one["sample_id"] == row.sample_id), None)
        came_from = f"{origin['source_uri']} {origin['member'] or ''}".strip() if origin else "a source unknown"
        return f"sample {row.name} came from {came_from}"

    def close(self) -> None:
        """Let go of all shards."""
        while self._open:
            self._open.popitem()[1].close()

    def _reader(self, row: PlannedRow) -> ShardReader:
        key = (row.dataset, row.part, row.shard)
        if key not in self._open:
            self._open[key] = self._open_shard(key, row)
        self._open.move_to_end(key)
        if len(self._open) > MAX_OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return self._open[key]

    def _open_shard(self, key: tuple[str, str, int], row: PlannedRow) -> ShardReader:
        try:
            reader = ShardReader(self._shard(row))
            if key not in self._verified:
                reader.verify(self._recorded_hash(row))
                self._verified.add(key)
        except (DataError, StorageError) as error:
            raise type(error)(f"{error}; {self._damage(row)}") from error
        return reader

    def _recorded_hash(self, row: PlannedRow) -> str:
        return read_part(self._mix.part(row.dataset, row.part)).shards[row.shard].xxh3_128

    def _shard(self, row: PlannedRow) -> Path:
        return self._mix.part(row.dataset, row.part) / shard_name(row.shard)

    def _damage(self, row: PlannedRow) -> str:
        """What a damaged shard takes with it, and what to do."""
        names = _some(one["sample_id"] for one in self._same_shard(row)) or "not known"
        folder = self._mix.part(row.dataset, row.part)
        return (
            f"{self.lineage(row)}; samples of {row.dataset} in this shard: {names}; "
            f"move {folder} away and run vlm-prep build-mix to convert it again"
        )

    def _same_shard(self, row: PlannedRow) -> list[dict[str, Any]]:
        """The samples beside ``row``; none where the index is damaged too: the first damage is said all the same."""
        path = self._mix.part(row.dataset, row.part) / "samples.parquet"
        filters = [("shard", "=", row.shard), ("status", "=", "kept")]
        try:
            table = pq.read_table(path, columns=["sample_id", "source_uri", "member"], filters=filters)
        except (OSError, pa.ArrowException):
            return []
        return table.to_pylist()  # type: ignore[no-any-return]


def _some(names: Iterable[Any], limit: int = 5) -> str:
    every = [str(name) for name in names]
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
