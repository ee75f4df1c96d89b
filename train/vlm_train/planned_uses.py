"""When each file of the cache is read, and how much is in use at a time, as a part of the plan says."""

import math
from collections.abc import Sequence

import numpy as np

from vlm_train.fetch_plan import Numbers, ShardLines, visits_of
from vlm_train.shard_cache import Piece


class PlannedUses:
    """The uses of pieces in a part of an epoch table; ``lines.shards`` are numbers of ``pieces``, steps are ticks."""

    def __init__(self, pieces: Sequence[Piece], lines: ShardLines, *, steps_ahead: int) -> None:
        visits = visits_of(lines, steps_ahead=steps_ahead)
        self.visits = [
            (pieces[number], tick) for number, tick in zip(visits.shards.tolist(), visits.begins.tolist(), strict=True)
        ]
        """Each piece and the first tick of each of its visits, in the order of ticks."""
        self._ticks, self._bytes = visits.bytes_in_use([piece.num_bytes for piece in pieces])
        self._reads = _by_number(pieces, lines.shards, lines.steps)
        self._begins = _by_number(pieces, visits.shards, visits.begins)
        self._ends = _by_number(pieces, visits.shards, visits.ends)

    @property
    def most_bytes(self) -> int:
        """The working set: the most bytes that are in use at once."""
        return int(self._bytes.max(initial=0))

    def most_in_use(self, begin: int, end: int) -> int:
        """The most bytes that are in use at a tick of [begin, end)."""
        first = max(0, int(np.searchsorted(self._ticks, begin, side="right")) - 1)
        return int(self._bytes[first : int(np.searchsorted(self._ticks, end))].max(initial=0))

    def next_use(self, name: str, tick: int) -> float:
        """The first tick from ``tick`` on that reads the file ``name``; infinity where none does."""
        ticks = self._reads.get(name)
        place = 0 if ticks is None else int(np.searchsorted(ticks, tick))
        return math.inf if ticks is None or place == len(ticks) else int(ticks[place])

    def is_in_use(self, name: str, tick: int) -> bool:
        """Is ``tick`` within a visit of the file?"""
        begins = self._begins.get(name)
        if begins is None:
            return False
        visit = int(np.searchsorted(begins, tick, side="right")) - 1
        return visit >= 0 and tick < int(self._ends[name][visit])


def _by_number(pieces: Sequence[Piece], numbers: Numbers, values: Numbers) -> dict[str, Numbers]:
    """File of each piece -> its values, in their order."""
    order = np.argsort(numbers, kind="stable")
    cuts = np.searchsorted(numbers[order], np.arange(len(pieces) + 1))
    return {piece.name: values[order[cuts[place] : cuts[place + 1]]] for place, piece in enumerate(pieces)}
