"""When will the run be done? From the pace of its last steps, with what happens between them."""

import time
from collections import deque
from collections.abc import Callable

STEPS_REMEMBERED = 50


class TimeLeft:
    """Told of every step as it ends."""

    def __init__(self, *, total_steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_steps = total_steps
        self._clock = clock
        self._ends: deque[tuple[int, float]] = deque(maxlen=STEPS_REMEMBERED)

    def after(self, step: int) -> float | None:
        """Seconds that are left after ``step`` has just ended; None while there is no pace yet."""
        self._ends.append((step, self._clock()))
        (first, began), (last, ended) = self._ends[0], self._ends[-1]
        if last == first:
            return None
        return max(0, self._total_steps - step) * (ended - began) / (last - first)
