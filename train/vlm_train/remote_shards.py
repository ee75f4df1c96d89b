"""Samples of datasets whose shards lie in an object store: in which file of the cache, brought there when it is not.

With ``fetch = "ranges"`` only the bytes that the plan reads are fetched; of a shard that it reads most of, all.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.config.stream_section import StreamSection
from vlm_catalogs.console import note
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.layout import MOVE_AWAY, PartRecord, read_part, shard_name
from vlm_catalogs.object_store import ObjectStore
from vlm_train.cache_folder import CacheFolder
from vlm_train.fetch_ahead import PARTS_KNOWN, FetchAhead
from vlm_train.fetch_plan import (
    STEPS_BETWEEN_EPOCHS,
    Numbers,
    ShardKey,
    ShardLines,
    coalesced,
    shard_lines,
)
from vlm_train.open_mix import OpenMix
from vlm_train.planned_uses import PlannedUses
from vlm_train.shard_cache import Piece, ShardCache, Traffic

MAX_GAP_BYTES = 1 << 20
"""Samples share a range where no more lies between them: a request costs about as much as so many bytes."""
WHOLE_FROM = 0.5
"""A shard of which this share is read is fetched whole: then its hash can be checked."""
PARTS_IN_MEMORY = 4096
SHARDS_IN_MEMORY = 65_536


class RemoteShards:
    """Brings shards, or ranges of them, into a cache that the processes of a node share."""

    def __init__(self, mix: OpenMix, store: ObjectStore, settings: StreamSection, *, steps_ahead: int = 1) -> None:
        """``steps_ahead``: how many steps the ranks of a node and their workers may be apart."""
        self._mix = mix
        self._limit = settings.cache_limit
        self._cache = ShardCache(CacheFolder(Path(settings.cache), limit=settings.cache_limit), store)
        self._by_range = settings.fetch == "ranges"
        self._steps_ahead = steps_ahead
        self._ahead = FetchAhead(self._cache, max_bytes=settings.fetch_ahead)
        self._ranges: deque[Mapping[tuple[ShardKey, int], Piece]] = deque(maxlen=PARTS_KNOWN)
        self._has_begun = False
        self._record = lru_cache(PARTS_IN_MEMORY)(self._read_record)
        self._whole = lru_cache(SHARDS_IN_MEMORY)(self._make_whole)
        self._spans = lru_cache(PARTS_IN_MEMORY)(self._read_spans)

    def holds(self, dataset: str) -> bool:
        """Do the shards of ``dataset`` lie in an object store?"""
        return dataset in self._mix.remote

    def plan(self, table: pa.Table, *, epoch: int, first_step: int) -> None:
        """The lines of an epoch table that this node reads next, from ``first_step`` on; they are fetched ahead.

        Raises ConfigError, naming the least that works, when the cache may hold less than they need at a time.
        """
        lines = shard_lines(table)
        is_remote = np.asarray([self.holds(key.dataset) for key in lines.keys], bool)
        lines = lines.only(is_remote[lines.shards] & (lines.steps >= first_step))
        pieces, numbers = self._pieces(lines)
        if self._by_range:
            places = zip(lines.shards.tolist(), lines.samples.tolist(), numbers.tolist(), strict=True)
            self._ranges.append({(lines.keys[shard], sample): pieces[number] for shard, sample, number in places})
        ticks = lines.steps + epoch * STEPS_BETWEEN_EPOCHS
        uses = PlannedUses(pieces, ShardLines((), numbers, lines.samples, ticks), steps_ahead=self._steps_ahead)
        self._check_room(uses.most_bytes)
        self._ahead.plan(uses)

    def reached(self, *, epoch: int, step: int) -> None:
        """All rows before this step have been read."""
        self._has_begun = True
        self._ahead.reached(epoch * STEPS_BETWEEN_EPOCHS + step)

    def piece(self, key: ShardKey, index: int) -> Piece:
        """Which piece a sample is read from. Raises DataError when the record of its part is damaged."""
        if not self._by_range:
            return self._whole(key)
        planned = (ranges.get((key, index)) for ranges in reversed(self._ranges))
        return next((piece for piece in planned if piece is not None), None) or self._alone(key, index)

    def trusted_path(self, piece: Piece) -> Path | None:
        """The file of the piece, None where it is not in the cache or not checked yet."""
        return self._cache.path(piece) if self._cache.has(piece) else None

    def bring(self, piece: Piece) -> None:
        """Have the piece in the cache, however long it takes. Raises as ``ShardCache.bring``."""
        self._ahead.bring_now(piece)

    def span(self, key: ShardKey, index: int) -> tuple[int, int]:
        """Where a sample begins and ends in its shard. Raises DataError when the index of its part is damaged."""
        first, spans = self._spans(key.dataset, key.part)
        begin, end = spans[first[key.shard] + index].tolist()
        return begin, end

    def take_traffic(self) -> Traffic:
        """What was downloaded since the last call."""
        return self._cache.take_traffic()

    def close(self) -> None:
        """Stop fetching."""
        self._cache.close()
        self._ahead.close()

    def _pieces(self, lines: ShardLines) -> tuple[Sequence[Piece], Numbers]:
        """The pieces that the lines read, and for each line the number of its own."""
        if not self._by_range:
            present, numbers = np.unique(lines.shards, return_inverse=True)
            return [self._whole(lines.keys[shard]) for shard in present.tolist()], numbers.reshape(-1)
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
        whole = self._whole(key)
        if asked >= WHOLE_FROM * whole.end:
            return whole
        return Piece(at=whole.at, shard_hash=whole.shard_hash, begin=begin, end=end, is_whole=False)

    def _alone(self, key: ShardKey, index: int) -> Piece:
        """The bytes of a sample that is in no plan."""
        begin, end = self.span(key, index)
        return self._range(key, begin, end, asked=end - begin)

    def _make_whole(self, key: ShardKey) -> Piece:
        file = self._record(key.dataset, key.part).shards[key.shard]
        at = self._mix.remote[key.dataset] / "parts" / key.part / shard_name(key.shard)
        return Piece(at=at, shard_hash=file.xxh3_128, begin=0, end=file.bytes)

    def _check_room(self, needed: int) -> None:
        capacity = self._cache.capacity()
        if needed <= capacity:
            return
        short = f"the plan reads up to {needed:,} bytes of shards at a time, and the cache can hold {capacity:,}"
        if self._limit is None or self._has_begun:
            note(f"{short}: shards will be downloaded more than once")
            return
        raise ConfigError(
            f'[stream] cache_limit: {short}; set cache_limit = {needed} or more, or fetch = "ranges" where few samples '
            "of a shard are drawn"
        )

    def _read_record(self, dataset: str, part: str) -> PartRecord:
        return read_part(self._mix.part(dataset, part))

    def _read_spans(self, dataset: str, part: str) -> tuple[list[int], Numbers]:
        """(first line of each shard, begin and end of each sample in its shard) of a part, in the order of places."""
        path = self._mix.part(dataset, part) / "samples.parquet"
        columns = ["shard", "index_in_shard", "byte_begin", "byte_end"]
        try:
            table = pq.read_table(path, columns=columns, filters=[("status", "=", "kept")])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read: {error}; {MOVE_AWAY}") from error
        table = table.sort_by([("shard", "ascending"), ("index_in_shard", "ascending")])
        counts = self._record(dataset, part).shard_samples
        spans = np.stack([table.column(name).to_numpy() for name in ("byte_begin", "byte_end")], axis=1)
        return [0, *accumulate(counts)], spans
