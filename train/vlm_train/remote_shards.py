"""Samples of datasets whose shards lie in an object store: in which file of the cache, brought there when it is not.

With ``fetch = "ranges"`` only the bytes that the plan reads are fetched; of a shard that it reads most of, all.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlm_catalogs.config.stream_section import StreamSection
from vlm_catalogs.console import note
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.object_store import ObjectStore
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import checked_sample
from vlm_train.cache_folder import CacheFolder
from vlm_train.fetch_ahead import PARTS_KNOWN, FetchAhead
from vlm_train.fetch_plan import STEPS_BETWEEN_EPOCHS, ShardKey, ShardLines, shard_lines
from vlm_train.open_mix import OpenMix
from vlm_train.planned_uses import PlannedUses
from vlm_train.shard_cache import Piece, ShardCache, Traffic
from vlm_train.shard_pieces import ShardPieces


class RemoteShards:
    """Brings shards, or ranges of them, into a cache that the processes of a node share."""

    def __init__(self, mix: OpenMix, store: ObjectStore, settings: StreamSection, *, steps_ahead: int = 1) -> None:
        """``steps_ahead``: how many steps the ranks of a node and their workers may be apart."""
        self._mix = mix
        self._store = store
        self._limit = settings.cache_limit
        self._cache = ShardCache(CacheFolder(Path(settings.cache), limit=settings.cache_limit), store)
        self._by_range = settings.fetch == "ranges"
        self._steps_ahead = steps_ahead
        self._ahead = FetchAhead(self._cache, max_bytes=settings.fetch_ahead)
        self._ranges: deque[Mapping[tuple[ShardKey, int], Piece]] = deque(maxlen=PARTS_KNOWN)
        self._has_begun = False
        self._pieces = ShardPieces(mix, by_range=self._by_range)

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
        pieces, numbers = self._pieces.of_lines(lines)
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
            return self._pieces.whole(key)
        planned = (ranges.get((key, index)) for ranges in reversed(self._ranges))
        return next((piece for piece in planned if piece is not None), None) or self._pieces.alone(key, index)

    def trusted_path(self, piece: Piece) -> Path | None:
        """The file of the piece, None where it is not in the cache or not checked yet."""
        return self._cache.path(piece) if self._cache.has(piece) else None

    def bring(self, piece: Piece) -> None:
        """Have the piece in the cache, however long it takes. Raises as ``ShardCache.bring``."""
        self._ahead.bring_now(piece)

    def aside(self, key: ShardKey, index: int) -> Piece:
        """The piece to read a sample of no plan from: its shard where that is here, else its bytes alone.

        Raises DataError when the record or the index of its part is damaged.
        """
        whole = self._pieces.whole(key)
        return whole if self._cache.has(whole) else self._pieces.alone(key, index)

    def bring_aside(self, piece: Piece) -> bool:
        """Have the piece in the cache where no file of a plan must leave for it. Raises as ``ShardCache.bring``."""
        return self._ahead.bring_aside(piece)

    def fetch_alone(self, key: ShardKey, index: int) -> Sample:
        """A sample read from the store past the cache. Raises DataError where it is damaged, StorageError."""
        begin, end = self._pieces.span(key, index)
        at = self._pieces.whole(key).at
        return checked_sample(memoryview(self._store.read_range(at, begin, end)), place=f"{at}: byte {begin:,}")

    def span(self, key: ShardKey, index: int) -> tuple[int, int]:
        """Where a sample begins and ends in its shard. Raises DataError when the index of its part is damaged."""
        return self._pieces.span(key, index)

    def take_traffic(self) -> Traffic:
        """What was downloaded since the last call."""
        return self._cache.take_traffic()

    def close(self) -> None:
        """Stop fetching."""
        self._cache.close()
        self._ahead.close()

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
