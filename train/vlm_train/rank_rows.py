"""Which rank takes which rows of a step: as many each, with the work of the vision tower spread evenly. Pure.

The step is the same for any number of ranks; only who computes a row changes (semantics C5).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


class PlannedSample(Protocol):
    """What the sharing looks at of a sample in a row."""

    @property
    def vision_patches(self) -> int:
        """Patches of its media."""
        ...


Row = TypeVar("Row", bound=Sequence[PlannedSample])


def rows_of_rank(rows: Iterable[Row], *, rows_per_step: int, rank: int, num_ranks: int) -> Iterator[Row]:
    """The rows of ``rank`` among ``rows``, which come step by step."""
    if num_ranks == 1:
        yield from rows
        return
    step: list[Row] = []
    for row in rows:
        step.append(row)
        if len(step) == rows_per_step:
            mine = rows_of_ranks([sum(sample.vision_patches for sample in one) for one in step], num_ranks=num_ranks)[
                rank
            ]
            yield from (step[place] for place in mine)
            step = []
    if step:
        raise AssertionError(f"the epoch table ends within a step: {len(step)} of {rows_per_step} rows")


def rows_of_ranks(patches: Sequence[int], *, num_ranks: int) -> list[list[int]]:
    """For each rank its rows, in order, given the vision patches of each row of a step.

    Longest processing time first, with the same number of rows for every rank: the row with most patches goes to the
    rank that has fewest so far among those with room. ``len(patches)`` must divide by ``num_ranks``.
    """
    room = len(patches) // num_ranks
    taken: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0] * num_ranks
    for row in sorted(range(len(patches)), key=lambda one: (-patches[one], one)):
        rank = min((one for one in range(num_ranks) if len(taken[one]) < room), key=lambda one: (load[one], one))
        taken[rank].append(row)
        load[rank] += patches[row]
    return [sorted(rows) for rows in taken]


def lines_of_ranks(table: pa.Table, *, rows_per_step: int, ranks: Collection[int], num_ranks: int) -> Flags:
    """Which lines of an epoch table (whole steps) go to ``ranks``, as ``rows_of_rank`` shares them out."""
    if len(ranks) == num_ranks or table.num_rows == 0:
        return np.ones(table.num_rows, bool)
    of_rows = ranks_of_rows(table, rows_per_step=rows_per_step, num_ranks=num_ranks)
    steps, rows = (table.column(name).to_numpy() for name in ("step", "row"))
    return np.isin(of_rows[steps - steps[0], rows], list(ranks))


def ranks_of_rows(table: pa.Table, *, rows_per_step: int, num_ranks: int) -> NDArray[np.int64]:
    """The rank of every row of an epoch table (whole steps, one at least): an array of (steps, rows of a step)."""
    steps, rows, patches = (
        table.column(name).to_numpy().astype(np.int64) for name in ("step", "row", "vision_patches")
    )
    places = (steps - steps[0]) * rows_per_step + rows
    sums = np.bincount(places, weights=patches).astype(np.int64).reshape(-1, rows_per_step)
    ranks = np.zeros(sums.shape, np.int64)
    if num_ranks > 1:
        for step, of_rows in enumerate(sums.tolist()):
            for rank, mine in enumerate(rows_of_ranks(of_rows, num_ranks=num_ranks)):
                ranks[step, mine] = rank
    return ranks
