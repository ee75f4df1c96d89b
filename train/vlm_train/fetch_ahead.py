"""Threads that bring pieces of shards into the cache in the order of the plan, before they are asked for.

They stop at a number of bytes ahead of the step that trains, and where what is in use until then leaves no room: so
that nothing is fetched twice that the cache could have kept. What they cannot bring is left to whoever asks for the
sample: the error is raised there, with its lineage.
"""

import math
import threading
from collections import deque

from vlm_catalogs.errors import UserError
from vlm_train.cache_folder import Leaving
from vlm_train.planned_uses import PlannedUses
from vlm_train.shard_cache import Piece, ShardCache

NUM_THREADS = 8
SECONDS_TO_TRY_AGAIN = 0.5
SECONDS_TO_END = 5.0
PARTS_KNOWN = 3
"""Parts of the plan that are remembered: the one that is read, the next, and the one before until it has trained."""


class FetchAhead:
    """Brings pieces ahead of time; ``reached`` says how far training is. ``max_bytes`` 0: never ahead."""

    def __init__(self, cache: ShardCache, *, max_bytes: int) -> None:
        self._cache = cache
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[Piece, int]] = deque()
        self._ahead: deque[tuple[Piece, int]] = deque()
        """What was taken, with the tick of its first use, which is still to come."""
        self._parts: deque[PlannedUses] = deque(maxlen=PARTS_KNOWN)
        self._tick = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._threads = [  # daemons: a server that is away may hold them for minutes
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(NUM_THREADS if max_bytes else 0)
        ]
        for thread in self._threads:
            thread.start()

    def plan(self, uses: PlannedUses) -> None:
        """What is read next, after all that was planned before."""
        with self._changed:
            self._parts.append(uses)
            if self._threads:
                self._waiting.extend(uses.visits)
            self._changed.notify_all()

    def reached(self, tick: int) -> None:
        """All before ``tick`` has been read."""
        with self._changed:
            self._tick = tick
            while self._ahead and self._ahead[0][1] <= tick:
                self._ahead.popleft()
            self._changed.notify_all()

    def bring_now(self, piece: Piece) -> None:
        """Have a piece that is asked for in the cache, however long it takes. Raises as ``ShardCache.bring``."""
        self._cache.bring(piece, leaving=self._for_now, wait=True)

    def bring_aside(self, piece: Piece) -> bool:
        """Have a piece of no plan in the cache where there is room that no plan needs. Raises as ``bring_now``."""
        return self._cache.bring(piece, leaving=self._for_no_plan, wait=False)

    def close(self) -> None:
        """End the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(SECONDS_TO_END)

    def _for_now(self, name: str) -> tuple[bool, float]:
        """Any file may leave for one that is asked for: those not in use before those in use, by their next use."""
        with self._changed:
            return not self._is_in_use(name), self._next_use(name)

    def _for_no_plan(self, name: str) -> tuple[bool, float] | None:
        """What may leave for a piece that no plan reads: what none of them reads either."""
        with self._changed:
            return (True, math.inf) if self._next_use(name) == math.inf and not self._is_in_use(name) else None

    def _for_later(self, tick: int) -> Leaving:
        """What may leave for a piece that is read at ``tick``: what is not in use and is read later."""

        def leaving(name: str) -> tuple[bool, float] | None:
            with self._changed:
                next_use = self._next_use(name)
                is_kept = self._is_in_use(name) or any(piece.name == name for piece, _ in self._ahead)
            return None if is_kept or next_use <= tick else (True, next_use)

        return leaving

    def _next_use(self, name: str) -> float:
        return min((uses.next_use(name, self._tick) for uses in self._parts), default=math.inf)

    def _is_in_use(self, name: str) -> bool:
        return any(uses.is_in_use(name, self._tick) for uses in self._parts)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            self._bring(*taken)

    def _take(self) -> tuple[Piece, int] | None:
        """The next piece, once there is one and there is room for it; None at the end."""
        with self._changed:
            while not self._is_closed and not (self._waiting and self._may_go_on(*self._waiting[0])):
                self._changed.wait()
            if self._is_closed:
                return None
            taken = self._waiting.popleft()
            if taken[1] > self._tick:
                self._ahead.append(taken)
            return taken

    def _may_go_on(self, piece: Piece, tick: int) -> bool:
        """May the piece come now? One at least may be ahead, but never where the room is in use before ``tick``."""
        ahead = sum(one.num_bytes for one, _ in self._ahead)
        if ahead and ahead + piece.num_bytes > self._max_bytes:
            return False
        capacity, rest = self._cache.capacity(), ahead
        begins = [self._tick, *(first for _, first in self._ahead)]
        for place, begin in enumerate(begins):
            if place:
                rest -= self._ahead[place - 1][0].num_bytes  # from its first tick on the plan counts it
            end = begins[place + 1] if place + 1 < len(begins) else tick
            used = max((uses.most_in_use(begin, end) for uses in self._parts), default=0)
            if begin < end and used + rest + piece.num_bytes > capacity:
                return False
        return True

    def _bring(self, piece: Piece, tick: int) -> None:
        """Try until it is here, or until its step has come: then whoever reads it waits for it."""
        while True:
            try:
                if self._cache.bring(piece, leaving=self._for_later(tick), wait=False):
                    return
            except UserError:
                return
            with self._changed:
                if self._is_closed or tick <= self._tick:
                    return
                self._changed.wait(SECONDS_TO_TRY_AGAIN)
