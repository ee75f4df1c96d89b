"""SIGTERM, SIGUSR1 (what Slurm sends ahead of a time limit) and SIGINT as a wish to stop after the step.

Launchers often send SIGTERM twice, to the processes and to their parent, who hands it on: only a second SIGINT, of
somebody at the keyboard, stops at once.
"""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """A context manager that remembers the first of the signals; the usual handler of SIGINT is back once it came."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, self._before.pop(signal.SIGINT))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
