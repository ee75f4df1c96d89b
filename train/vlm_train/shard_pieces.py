"""Which bytes of shards are read as one: whole shards, or the ranges that a plan asks for."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import MOVE_AWAY, PartRecord, read_part, shard_name
from vlm_train.fetch_plan import Numbers, ShardKey, ShardLines, coalesced
from vlm_train.open_mix import OpenMix
from vlm_train.shard_cache import Piece

MAX_GAP_BYTES = 1 << 20
"""Samples share a range where no more lies between them: a request costs about as much as so many bytes."""
WHOLE_FROM = 0.5
"""A shard of which this share is read is fetched whole: then its hash can be checked."""
PARTS_IN_MEMORY = 4096
SHARDS_IN_MEMORY = 65_536


class ShardPieces:
    """The pieces of the shards of a mix that lie in an object store."""

    def __init__(self, mix: OpenMix, *, by_range: bool) -> None:
        self._mix = mix
        self._by_range = by_range
        self._record = lru_cache(PARTS_IN_MEMORY)(self._read_record)
        self._spans = lru_cache(PARTS_IN_MEMORY)(self._read_spans)
        self.whole = lru_cache(SHARDS_IN_MEMORY)(self._make_whole)
        """The piece that is all of a shard. Raises DataError when the record of its part is damaged."""

    def span(self, key: ShardKey, index: int) -> tuple[int, int]:
        """Where a sample begins and ends in its shard. Raises DataError when the index of its part is damaged."""
        first, spans = self._spans(key.dataset, key.part)
        begin, end = spans[first[key.shard] + index].tolist()
        return begin, end

    def of_lines(self, lines: ShardLines) -> tuple[Sequence[Piece], Numbers]:
        """The pieces that the lines read, and for each line the number of its own."""
        if not self._by_range:
            present, numbers = np.unique(lines.shards, return_inverse=True)
            return [self.whole(lines.keys[shard]) for shard in present.tolist()], numbers.reshape(-1)
        spans = [
            self.span(lines.keys[shard], sample)
            for shard, sample in zip(lines.shards.tolist(), lines.samples.tolist(), strict=True)
        ]
        begins, ends = np.asarray(spans, np.int64).reshape(-1, 2).T
        numbers, starts, stops = coalesced(lines.shards, begins, ends, max_gap=MAX_GAP_BYTES)
        _, firsts = np.unique(numbers, return_index=True)
        owners = lines.shards[firsts]
        asked = np.bincount(owners, weights=stops - starts, minlength=len(lines.keys))
        pieces: dict[Piece, int] = {}
        renumbered = [
            pieces.setdefault(self._range(lines.keys[owner], begin, end, asked=float(asked[owner])), len(pieces))
            for owner, begin, end in zip(owners.tolist(), starts.tolist(), stops.tolist(), strict=True)
        ]
        return list(pieces), np.asarray(renumbered, np.int64)[numbers]

    def _range(self, key: ShardKey, begin: int, end: int, *, asked: float) -> Piece:
        """Bytes of a shard, of which ``asked`` are read in all."""
        whole = self.whole(key)
        if asked >= WHOLE_FROM * whole.end:
            return whole
        return Piece(at=whole.at, shard_hash=whole.shard_hash, begin=begin, end=end, is_whole=False)

    def alone(self, key: ShardKey, index: int) -> Piece:
        """The bytes of a sample that is in no plan."""
        begin, end = self.span(key, index)
        return self._range(key, begin, end, asked=end - begin)

    def _make_whole(self, key: ShardKey) -> Piece:
        file = self._record(key.dataset, key.part).shards[key.shard]
        at = self._mix.remote[key.dataset] / "parts" / key.part / shard_name(key.shard)
        return Piece(at=at, shard_hash=file.xxh3_128, begin=0, end=file.bytes)

    def _read_record(self, dataset: str, part: str) -> PartRecord:
        return read_part(self._mix.part(dataset, part))

    def _read_spans(self, dataset: str, part: str) -> tuple[list[int], Numbers]:
        """(first line of each shard, begin and end of each sample in its shard) of a part, in the order of places."""
        path = self._mix.samples_table(dataset, part)
        columns = ["shard", "index_in_shard", "byte_begin", "byte_end"]
        try:
            table = pq.read_table(path, columns=columns, filters=[("status", "=", "kept")])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read: {error}; {MOVE_AWAY}") from error
        table = table.sort_by([("shard", "ascending"), ("index_in_shard", "ascending")])
        counts = self._record(dataset, part).shard_samples
        spans = np.stack([table.column(name).to_numpy() for name in ("byte_begin", "byte_end")], axis=1)
        return [0, *accumulate(counts)], spans
