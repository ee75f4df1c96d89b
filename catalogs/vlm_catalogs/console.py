"""What a command says and how it ends: results on stdout, all else on stderr, one line that updates per stage."""

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vlm_catalogs.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

DONE = 0
BUG = 1
WRONG_INPUT = 2
FINDINGS = 3
INTERRUPTED = 130
ENVIRONMENT = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENAMETOOLONG)
)
"""What the system says of a path is no bug: no permission, no space, a broken disk, a name that is too long."""
SECONDS_BETWEEN_PLAIN_LINES = 10.0


def run_main(command: Callable[[], int]) -> int:
    """The exit code of ``command``: its own, 2 for what the user can mend, 1 with a traceback for a bug."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except UserError as error:
        _say(str(error))
        return WRONG_INPUT
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_broken_pipe()
    except Exception as error:  # noqa: BLE001 the one place where a bug becomes an exit code
        if isinstance(error, OSError) and error.errno in ENVIRONMENT and error.filename is not None:
            _say(f"{error.filename}: {error.strerror}")
            return WRONG_INPUT
        _say(traceback.format_exc().rstrip())
        return BUG


_is_quiet = False


def be_quiet() -> None:
    """From now on tell of errors only: another process of the same run says the rest."""
    global _is_quiet
    _is_quiet = True


def result(text: str) -> None:
    """Print a result to stdout."""
    if _is_quiet:
        return
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Tell the user what they should know, on stderr."""
    if not _is_quiet:
        _say(f"note: {text}")


def fact(text: str) -> None:
    """Print the one line that a stage ends with, on stderr."""
    if not _is_quiet:
        _say(text)


class Progress:
    """One line for one stage, as a context manager: done/total, rate, time left; plain lines where no terminal is."""

    def __init__(self, stage: str, *, total: int | None = None, unit: str = "samples") -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._detail = 0, ""
        self._started = self._said = time.monotonic()
        self._live: RichProgress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._live = _live_line(self._stage, self._total, self._unit)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def advance(self, count: int = 1, *, detail: str = "") -> None:
        """Count ``count`` more as done; ``detail`` stands at the end of the line."""
        self._done += count
        self._detail = detail
        if self._live is not None:
            self._live.update(self._live.task_ids[0], advance=count, rate=self._rate(), detail=detail)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_PLAIN_LINES:
            self._said = time.monotonic()
            _say(self.line())

    def line(self) -> str:
        """How far the stage is, such as ``convert: 1,200/4,000 samples, 300/s, 9 s left``."""
        rate = self._rate()
        total = f"/{self._total:,}" if self._total is not None else ""
        left = f", {(self._total - self._done) / rate:,.0f} s left" if self._total is not None and rate > 0 else ""
        detail = f"; {self._detail}" if self._detail else ""
        return f"{self._stage}: {self._done:,}{total} {self._unit}, {rate:,.0f}/s{left}{detail}"

    def _rate(self) -> float:
        return self._done / max(time.monotonic() - self._started, 1e-9)


def _live_line(stage: str, total: int | None, unit: str) -> "RichProgress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    rest = (TextColumn("{task.fields[rate]:,.0f}/s"), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
    live = RichProgress(*columns, *rest, console=Console(stderr=True), transient=True)
    live.add_task(stage, total=total, rate=0.0, detail="")
    return live


def _say(text: str) -> None:
    """Write to stderr; a reader that has gone away is no reason to fail."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        pass


def _leave_broken_pipe() -> int:
    """End quietly when stdout's reader (such as ``head``) has gone; Python would complain again at exit otherwise."""
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123 a device, not a path of ours
        os.dup2(devnull.fileno(), sys.stdout.fileno())
    return DONE
