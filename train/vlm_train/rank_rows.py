"""Which rank takes which rows of a step: as many each, with the work of the vision tower spread evenly. Pure.

The step is the same for any number of ranks; only who computes a row changes (semantics C5).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar


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
