"""Is a rank stuck? Every rank tells of what it does in a small file of the run; one that does nothing new ends the run.

A thread of each process writes ``<run>/ranks/rank-00000.json`` now and then. When its own main thread has been at one
thing for ``[train] stuck_after_seconds``, it writes the stacks of all threads to ``rank-00000.stacks.txt`` beside it,
names the rank that is furthest behind, and ends the process: a collective call that waits for a rank that does not
come cannot be left in any other way. A process that is stopped, or held in code that never gives Python a turn, tells
nothing, which is how the others know; of the latter faulthandler still writes the stacks. Times are compared on one
machine's clock only: others are seen by whether their files change.
"""

import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vlm_catalogs import json_text
from vlm_train.ranks import Ranks

FOLDER = "ranks"
STUCK_EXIT = 75
"""EX_TEMPFAIL of sysexits.h: the same command again, with --resume, may well work."""
TELLINGS = 20
"""Times that a rank writes its file in ``stuck_after_seconds``, but within the next two."""
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a rank tells of itself."""

    rank: int
    pid: int
    host: str
    doing: str
    num_things: int
    """Things begun since the start: ranks do the same things in the same order, so fewer is behind."""
    since: float
    """Seconds at this one."""
    told: int
    """How often it has told."""


class RankWatch:
    """Watches the main thread of this rank between enter and exit; ``at`` says what it begins."""

    def __init__(self, output_dir: Path, ranks: Ranks, *, stuck_after_seconds: float) -> None:
        """0 seconds watch nothing."""
        self._folder = output_dir / FOLDER
        self._ranks = ranks
        self._limit = stuck_after_seconds
        self._seconds = min(LONGEST_SECONDS, max(SHORTEST_SECONDS, stuck_after_seconds / TELLINGS))
        self._now = ("starting", 0, time.monotonic())
        self._told = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rank-watch", daemon=True)
        self._stacks: IO[str] | None = None

    def at(self, doing: str) -> None:
        """The main thread begins to do something else."""
        self._now = (doing, self._now[1] + 1, time.monotonic())

    def __enter__(self) -> Self:
        if self._limit > 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._stacks = self._path("stacks.txt").open("w", encoding="utf-8")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stacks is None:
            return
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._stacks.close()
        self._path("json").unlink(missing_ok=True)
        stacks = self._path("stacks.txt")
        if stacks.stat().st_size == 0:  # else they say what this rank was at when another one ended the run
            stacks.unlink()

    def _watch(self) -> None:
        while not self._over.wait(self._seconds):
            assert self._stacks is not None
            # Should this thread get no turn any more, a thread below Python still writes the stacks.
            faulthandler.dump_traceback_later(self._limit + self._seconds, file=self._stacks)
            self._tell()
            _, num_things, began = self._now
            if time.monotonic() - began >= self._limit:
                self._end(num_things)

    def _end(self, num_things: int) -> None:
        """Tell why and end the process, unless the main thread has gone on after all."""
        assert self._stacks is not None
        stacks = all_stacks()
        before = self._others()
        deadline = time.monotonic() + 2.5 * self._seconds  # the others get time to tell once more
        while time.monotonic() < deadline:
            if self._over.wait(self._seconds / 2) or self._now[1] != num_things:
                return
            self._tell()
        mine = self._tell()
        self._stacks.write(stacks)
        self._stacks.flush()
        verdict = who_is_stuck(mine, before, self._others(), size=self._ranks.size)
        says_stacks = verdict.is_blamed(mine.rank) or verdict.first_to_tell == mine.rank
        text = (
            f"rank {mine.rank} has been at one thing for {mine.since:.0f} s ({mine.doing}), which is more than "
            f"train.stuck_after_seconds = {self._limit:g}: {verdict.text}; the stacks of this rank are in "
            f"{self._path('stacks.txt')}; ending the run, go on with --resume\n"
        )
        sys.stderr.write(text + stacks if says_stacks else text)
        sys.stderr.flush()
        os._exit(STUCK_EXIT)

    def _tell(self) -> Told:
        doing, num_things, began = self._now
        self._told += 1
        told = Told(
            rank=self._ranks.rank,
            pid=os.getpid(),
            host=os.uname().nodename,
            doing=doing,
            num_things=num_things,
            since=time.monotonic() - began,
            told=self._told,
        )
        staged = self._path("json.tmp")
        with suppress(OSError):  # a disk that is full is told by who writes something that counts
            staged.write_text(json_text.dumps(asdict(told)))
            staged.replace(self._path("json"))
        return told

    def _others(self) -> dict[int, Told]:
        found = (self._path("json", rank=rank) for rank in range(self._ranks.size))
        told = [_read(path) for path in found]
        return {one.rank: one for one in told if one is not None}

    def _path(self, name: str, *, rank: int | None = None) -> Path:
        return self._folder / f"rank-{self._ranks.rank if rank is None else rank:05d}.{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Who keeps the others waiting."""

    text: str
    ranks: tuple[int, ...]
    first_to_tell: int
    """The lowest rank that is heard of: it shows its stacks where all wait."""

    def is_blamed(self, rank: int) -> bool:
        """Is it one of those that keep the others waiting?"""
        return rank in self.ranks


def who_is_stuck(mine: Told, before: Mapping[int, Told], after: Mapping[int, Told], *, size: int) -> Blame:
    """The ranks that were not heard of between two looks at the files, else those that are behind; pure."""
    silent = [
        rank
        for rank in range(size)
        if rank != mine.rank and (rank not in after or after[rank].told == getattr(before.get(rank), "told", None))
    ]
    heard = {rank: told for rank, told in after.items() if rank not in silent} | {mine.rank: mine}
    first = min(heard)
    if silent:
        named = [_silent(rank, after.get(rank)) for rank in silent[:3]]
        return Blame(text=_listed(named, len(silent)), ranks=tuple(silent), first_to_tell=first)
    fewest = min(told.num_things for told in heard.values())
    behind = [told for told in heard.values() if told.num_things == fewest]
    if len(behind) == size:
        what = "it is the only rank" if size == 1 else f"all {size} ranks are at this"
        return Blame(text=what, ranks=(), first_to_tell=first)
    named = [f"rank {told.rank} (pid {told.pid} on {told.host}) is behind: {told.doing}" for told in behind[:3]]
    return Blame(text=_listed(named, len(behind)), ranks=tuple(told.rank for told in behind), first_to_tell=first)


def _silent(rank: int, told: Told | None) -> str:
    if told is None:
        return f"rank {rank} has told nothing"
    return f"rank {rank} (pid {told.pid} on {told.host}) is not heard of any more; its last word: {told.doing}"


def _listed(named: Sequence[str], number: int) -> str:
    return "; ".join(named) + (f"; and {number - len(named)} more" if number > len(named) else "")


def _read(path: Path) -> Told | None:
    try:
        fields: dict[str, Any] = json.loads(path.read_text())
        return Told(**fields)
    except (OSError, ValueError, TypeError):
        return None


def all_stacks() -> str:
    """The stack of every thread of this process, the main one first."""
    frames = sys._current_frames()
    threads = sorted(threading.enumerate(), key=lambda one: one is not threading.main_thread())
    blocks = [
        f"thread {thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
        for thread in threads
        if thread.ident in frames
    ]
    return "\n".join(blocks)
