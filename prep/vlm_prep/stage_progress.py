"""The progress of a stage as people see it: a line per source and one for all, never more than the terminal has.

At a terminal the lines update in place and go when the stage ends; elsewhere some plain lines come every few seconds.
"""

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from vlm_catalogs import console
from vlm_prep.stage_counts import Count, Key, Made, Piece, StageCounts

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

Ahead = Callable[[Sequence[Piece]], Mapping[Key, Made]]
"""What there is already of pieces in work, for the live view."""

REFRESHES_PER_SECOND = 2
PLAIN_SOURCES = 8
"""So many sources have a plain line at a time."""
WIDE = 120
"""Columns of a terminal that have room for bars."""
SPARE_LINES = 2
"""Lines of the terminal left to what is told above."""
NAMED_REASONS = 3


class StageProgress:
    """Counts what is done of ``pieces`` and shows it, as a context manager."""

    def __init__(self, stage: str, pieces: Sequence[Piece], *, num_workers: int, ahead: Ahead | None = None) -> None:
        self._stage = stage
        self._counts = StageCounts(pieces, num_workers=num_workers, now=time.monotonic())
        self._ahead = ahead
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None
        self._num_told = 0
        self._is_empty = not pieces

    def __enter__(self) -> Self:
        if self._is_empty:
            return self
        if sys.stderr.isatty():
            self._live = _live_view(self._table)
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._tell, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()

    def done(self, key: Key, made: Made) -> None:
        """Count a piece that is done."""
        with self._lock:
            self._counts.done(key, made, now=time.monotonic())

    def plain_lines(self) -> list[str]:
        """The stage in all, then the sources in work and those that are done since the last time."""
        with self._lock:
            sources, total = self._now()
            ended = self._counts.ended()
            fresh, self._num_told = set(ended[self._num_told :]), len(ended)
            working = {piece.source for piece in self._counts.in_work}
        shown = [count for count in sources if count.name in working | fresh]
        more = [f"  +{len(shown) - PLAIN_SOURCES} more"] if len(shown) > PLAIN_SOURCES else []
        return [_total_line(total, sources), *(f"  {_source_line(count)}" for count in shown[:PLAIN_SOURCES]), *more]

    def _tell(self) -> None:
        while not self._stop.wait(console.SECONDS_BETWEEN_PLAIN_LINES):
            console.fact("\n".join(self.plain_lines()))

    def _now(self) -> tuple[list[Count], Count]:
        now = time.monotonic()
        ahead = self._ahead(self._counts.in_work) if self._ahead is not None else None
        sources = self._counts.sources(now=now, ahead=ahead)
        return sources, self._counts.in_all(sources, name=self._stage, now=now)

    def _table(self, *, width: int, height: int) -> "Table":
        with self._lock:
            sources, total = self._now()
            ended = self._counts.ended()
            working = [piece.source for piece in self._counts.in_work]
        chosen = chosen_sources(working, ended, num_lines=height - SPARE_LINES - 2)
        return _drawn(sources, total, chosen, width=width, counts_rest=height > SPARE_LINES)


def chosen_sources(working: Sequence[str], ended: Sequence[str], *, num_lines: int) -> list[str]:
    """The sources to show on so many lines: those in work first, then those that were done last."""
    wanted = dict.fromkeys([*working, *reversed(ended)])
    return list(wanted)[: max(0, num_lines)]


def _live_view(table: Callable[..., "Table"]) -> "Live":
    from rich.console import Console
    from rich.live import Live

    screen = Console(stderr=True)
    return Live(
        get_renderable=lambda: table(width=screen.width, height=screen.height),
        console=screen,
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
    )


def _drawn(sources: Sequence[Count], total: Count, chosen: Sequence[str], *, width: int, counts_rest: bool) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    by_name = {count.name: count for count in sources}
    shown = [by_name[name] for name in chosen]
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, width // 4))
    if width >= WIDE:
        table.add_column()
    *columns, _ = zip(*map(_cells, [*shown, total]), strict=True)
    for cells in columns:
        table.add_column(justify="right", no_wrap=True, min_width=min(width, max(map(len, cells))))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for count in [*shown, total]:
        if count is total and counts_rest and (more := _more_line(sources, shown)):
            table.add_row(Text(more, style="dim"))
        bar = [ProgressBar(total=1.0, completed=count.share, width=16)] if width >= WIDE else []
        table.add_row(Text(count.name), *bar, *(Text(cell) for cell in _cells(count)))
    return table


def _more_line(sources: Sequence[Count], shown: Sequence[Count]) -> str:
    names = {count.name for count in shown}
    rest = [count for count in sources if count.name not in names]
    num_done = sum(count.is_done for count in rest)
    return f"+{len(rest)} more ({num_done} done)" if rest else ""


def _cells(count: Count) -> list[str]:
    return [
        f"{count.num_done}/{count.num_pieces} parts",
        f"{count.per_second(count.samples):,.0f} samples/s",
        f"{count.per_second(count.bytes) / 1e6:,.1f} MB/s",
        _left(count),
        _rejections(count),
    ]


def _left(count: Count) -> str:
    if count.is_done:
        return f"done in {_time(count.seconds)}"
    seconds = count.seconds_left
    return "? left" if seconds is None else f"{_time(seconds)} left"


def _time(seconds: float) -> str:
    """Such as ``41 s``, ``12 min 05 s`` or ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def _rejections(count: Count) -> str:
    if not count.rejected:
        return ""
    ranked = count.rejected.most_common()
    named = [f"{number:,} {reason}" for reason, number in ranked[:NAMED_REASONS]]
    if rest := sum(number for _, number in ranked[NAMED_REASONS:]):
        named.append(f"{rest:,} for other reasons")
    return f"rejected {', '.join(named)}"


def _total_line(total: Count, sources: Sequence[Count]) -> str:
    finished = sum(count.is_done for count in sources)
    return f"{_source_line(total)}; {finished:,}/{len(sources):,} sources done"


def _source_line(count: Count) -> str:
    parts, *cells = _cells(count)
    return (
        f"{count.name}: {', '.join([f'{count.share:.0%}', parts, f'{count.samples:,} samples', *filter(None, cells)])}"
    )
