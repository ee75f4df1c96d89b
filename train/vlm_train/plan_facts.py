"""What an epoch table says in numbers: how full rows are, what each dataset gives, what a node reads. Pure."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vlm_train.fetch_plan import Numbers, ShardLines, Visits, shard_lines, visits_of
from vlm_train.planned_rows import NUM_EMPTY_TOKENS
from vlm_train.rank_rows import RowSharing, ranks_of_rows

STEPS_PER_WINDOW = 100
LINES_AT_A_TIME = 1_000_000
"""Visits are found among so many lines at a time: memory stays small for epochs of any size."""

Extents = Callable[[ShardLines], tuple[Sequence[Hashable], Sequence[int], Numbers]]
"""Which pieces lines read: their names, their bytes, and for each line the number of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunShape:
    """How a run takes its steps."""

    sharing: RowSharing
    mini_batch: int
    pack_tokens: int | None
    steps_ahead: int
    """How many steps the ranks of a node and their workers may be apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What an epoch takes from one dataset."""

    samples: int = 0
    tokens: int = 0
    supervised_tokens: int = 0

    def __add__(self, other: "Drawn") -> "Drawn":
        return Drawn(
            samples=self.samples + other.samples,
            tokens=self.tokens + other.tokens,
            supervised_tokens=self.supervised_tokens + other.supervised_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochFacts:
    """The numbers of one epoch."""

    epoch: int
    steps: int
    rows: int
    """With samples in them."""
    empty_rows: int
    """That fill the last step."""
    samples: int
    tokens: int
    samples_per_step: float
    row_fill: float | None
    """Part of the tokens that its rows could hold; None where each row is one sample."""
    padding_share: float
    """Part of all tokens that go through the model: rows of a micro-batch are padded to the longest."""
    shards_per_100_steps: float
    """Different shards (or ranges of them) that 100 steps read, on average."""
    working_set_bytes: int
    """The most that a node has in use at once."""
    bytes_per_node: int
    """What the node that reads most reads, each visit of a shard anew."""
    datasets: dict[str, Drawn]


class EpochCounter:
    """Counts an epoch part by part."""

    def __init__(self, epoch: int, shape: RunShape, extents: Extents) -> None:
        self._epoch = epoch
        self._shape = shape
        self._extents = extents
        self._drawn: dict[str, Drawn] = defaultdict(Drawn)
        self._rows = self._empty_rows = self._padded_tokens = self._steps = 0
        self._numbers: dict[Hashable, int] = {}
        self._sizes: list[int] = []
        self._windows: list[Numbers] = []
        self._lines: list[list[ShardLines]] = [[] for _ in shape.sharing.nodes]

    def add(self, table: pa.Table) -> None:
        """Take in the next part: whole steps."""
        if table.num_rows == 0:
            return
        ranks = ranks_of_rows(table, sharing=self._shape.sharing)
        self._steps += len(ranks)
        self._add_drawn(table)
        self._add_rows(table, ranks)
        self._add_reads(table, ranks)

    def facts(self) -> EpochFacts:
        """The numbers of all parts so far."""
        total = sum(self._drawn.values(), Drawn())
        room = None if self._shape.pack_tokens is None else max(1, self._rows) * self._shape.pack_tokens
        reads = [self._reads(lines) for lines in self._lines]
        windows = len(np.unique(np.concatenate([*self._windows, np.empty(0, np.int64)])))
        return EpochFacts(
            epoch=self._epoch,
            steps=self._steps,
            rows=self._rows,
            empty_rows=self._empty_rows,
            samples=total.samples,
            tokens=total.tokens,
            samples_per_step=total.samples / max(1, self._steps),
            row_fill=None if room is None else total.tokens / room,
            padding_share=1 - total.tokens / max(1, self._padded_tokens),
            shards_per_100_steps=windows / max(1, -(-self._steps // STEPS_PER_WINDOW)),
            working_set_bytes=max(most for most, _ in reads),
            bytes_per_node=max(read for _, read in reads),
            datasets=dict(sorted(self._drawn.items())),
        )

    def _add_drawn(self, table: pa.Table) -> None:
        names = table.column("dataset").combine_chunks().dictionary_encode()
        owners = names.indices.to_numpy()
        sums = [np.bincount(owners)] + [
            np.bincount(owners, weights=table.column(name).to_numpy()) for name in ("tokens", "supervised_tokens")
        ]
        for name, samples, tokens, supervised in zip(names.dictionary.to_pylist(), *sums, strict=True):
            if name:  # an empty row has none
                drawn = Drawn(samples=int(samples), tokens=int(tokens), supervised_tokens=int(supervised))
                self._drawn[name] += drawn

    def _add_rows(self, table: pa.Table, ranks: Numbers) -> None:
        """Rows and padded tokens; a rank takes its rows of a step in order, ``mini_batch`` at a time."""
        steps, rows, tokens = (table.column(name).to_numpy().astype(np.int64) for name in ("step", "row", "tokens"))
        places = (steps - steps[0]) * self._shape.sharing.rows_per_step + rows
        lengths = np.bincount(places, weights=tokens).astype(np.int64).reshape(ranks.shape)
        self._rows += int(np.count_nonzero(lengths))
        self._empty_rows += int(np.count_nonzero(lengths == 0))
        by_rank = np.take_along_axis(lengths, np.argsort(ranks, axis=1, kind="stable"), axis=1)
        longest = np.maximum(by_rank, NUM_EMPTY_TOKENS).reshape(-1, self._shape.mini_batch).max(axis=1)
        self._padded_tokens += int(longest.sum()) * self._shape.mini_batch

    def _add_reads(self, table: pa.Table, ranks: Numbers) -> None:
        lines = shard_lines(table)
        names, sizes, numbers = self._extents(lines)
        known = len(self._numbers)
        pieces = np.asarray([self._numbers.setdefault(name, len(self._numbers)) for name in names], np.int64)
        self._sizes += [size for size, number in zip(sizes, pieces.tolist(), strict=True) if number >= known]
        read = pieces[numbers]
        self._windows.append(np.unique(read << 32 | lines.steps // STEPS_PER_WINDOW))
        nodes = self._nodes_of_lines(table, ranks)
        for node, kept in enumerate(self._lines):
            mine = nodes == node
            columns = (column[mine].astype(np.int32) for column in (read, lines.samples, lines.steps))
            kept.append(ShardLines((), *columns))

    def _nodes_of_lines(self, table: pa.Table, ranks: Numbers) -> Numbers:
        """Of each planned line, in the order of ``shard_lines``."""
        steps, rows = (table.column(name).to_numpy() for name in ("step", "row"))
        is_planned = np.asarray(table.column("status").to_numpy() == "planned")
        of_ranks = np.zeros(self._shape.sharing.num_ranks, np.int64)
        for node, mine in enumerate(self._shape.sharing.nodes):
            of_ranks[list(mine)] = node
        found: Numbers = of_ranks[ranks[steps - steps[0], rows]][is_planned]
        return found

    def _reads(self, parts: Sequence[ShardLines]) -> tuple[int, int]:
        """(working set, bytes that are read) of one node."""
        pieces, samples, steps = (
            np.concatenate([np.empty(0, np.int32), *(getattr(part, name) for part in parts)])
            for name in ("shards", "samples", "steps")
        )
        num_groups = len(pieces) // LINES_AT_A_TIME + 1
        groups = [pieces % num_groups == group for group in range(num_groups)]
        visits = [
            visits_of(
                ShardLines((), *(column[group].astype(np.int64) for column in (pieces, samples, steps))),
                steps_ahead=self._shape.steps_ahead,
            )
            for group in groups
        ]
        every = Visits(*(np.concatenate([getattr(one, name) for one in visits]) for name in Visits.__slots__))
        if not len(every.shards):
            return 0, 0
        read = int(np.asarray(self._sizes, np.int64)[every.shards].sum())
        return int(every.bytes_in_use(self._sizes)[1].max()), read
