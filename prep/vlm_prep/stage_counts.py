"""How far is a stage, source by source and in all? Pure counting; the caller says when."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

Key = tuple[str, str]
"""Source and part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One part that a stage works through."""

    source: str
    part: str
    work: int
    """In the unit that the time left is reckoned by: bytes to read, samples to measure."""

    @property
    def key(self) -> Key:
        """No other piece of the stage has it."""
        return self.source, self.part


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of a piece, or of a piece so far."""

    samples: int = 0
    bytes: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Reason -> samples; they are counted in ``samples`` too."""
    share: float = 0.0
    """Of a piece in work: how much of it is done, about, from 0 to 1."""


@dataclass(slots=True, kw_only=True)
class Count:
    """How far one source is, or all of them."""

    name: str
    num_pieces: int = 0
    num_done: int = 0
    total_work: int = 0
    work: float = 0.0
    samples: int = 0
    bytes: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Since the first of its pieces came into work, until the last one was done."""

    @property
    def is_done(self) -> bool:
        """Is no piece left?"""
        return self.num_done == self.num_pieces

    @property
    def share(self) -> float:
        """Of its work, from 0 to 1."""
        if self.is_done:
            return 1.0
        return min(1.0, self.work / self.total_work) if self.total_work else self.num_done / self.num_pieces

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None where there is no rate yet."""
        if self.is_done:
            return 0.0
        return self.seconds * (1 - self.share) / self.share if self.share > 0 else None

    def per_second(self, amount: float) -> float:
        """A rate over the time it took."""
        return amount / max(self.seconds, 1e-9)


class StageCounts:
    """Counts the pieces of one stage, which are begun in their order, ``num_workers`` at once."""

    def __init__(self, pieces: Sequence[Piece], *, num_workers: int, now: float) -> None:
        self._pieces = {piece.key: piece for piece in pieces}
        self._waiting = dict.fromkeys(self._pieces)
        self._num_workers = max(1, num_workers)
        self._counts: dict[str, Count] = {}
        self._begun: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._started = now
        for piece in pieces:
            count = self._counts.setdefault(piece.source, Count(name=piece.source))
            count.num_pieces += 1
            count.total_work += piece.work
        self._begin(now)

    @property
    def in_work(self) -> list[Piece]:
        """The pieces that the workers have, as long as they take them in order."""
        return [self._pieces[key] for key, _ in zip(self._waiting, range(self._num_workers), strict=False)]

    def done(self, key: Key, made: Made, *, now: float) -> None:
        """Count a piece that is done. Raises KeyError for one that is not among them or was counted before."""
        del self._waiting[key]
        count = self._counts[key[0]]
        count.num_done += 1
        count.work += self._pieces[key].work
        _add(count, made)
        if count.is_done:
            self._begun.setdefault(count.name, self._started)  # taken out of turn, by a worker that was free
            self._ended[count.name] = now
        self._begin(now)

    def sources(self, *, now: float, ahead: Mapping[Key, Made] | None = None) -> list[Count]:
        """Every source in order; ``ahead`` is what there is of pieces in work."""
        counts = {name: _copy(count) for name, count in self._counts.items()}
        for key, made in (ahead or {}).items():
            if key in self._waiting:
                counts[key[0]].work += made.share * self._pieces[key].work
                _add(counts[key[0]], made)
        for name, count in counts.items():
            if name in self._begun:
                count.seconds = self._ended.get(name, now) - self._begun[name]
        return list(counts.values())

    def ended(self) -> list[str]:
        """The sources of which nothing is left, the last one last."""
        return list(self._ended)

    def in_all(self, sources: Sequence[Count], *, name: str, now: float) -> Count:
        """The sum of ``sources``, as ``sources()`` gave them."""
        total = Count(name=name, seconds=now - self._started)
        for count in sources:
            total.num_pieces += count.num_pieces
            total.num_done += count.num_done
            total.total_work += count.total_work
            total.work += count.work
            total.samples += count.samples
            total.bytes += count.bytes
            total.rejected.update(count.rejected)
        return total

    def _begin(self, now: float) -> None:
        for piece in self.in_work:
            self._begun.setdefault(piece.source, now)


def _add(count: Count, made: Made) -> None:
    count.samples += made.samples
    count.bytes += made.bytes
    count.rejected.update(made.rejected)


def _copy(count: Count) -> Count:
    return replace(count, rejected=Counter(count.rejected))
