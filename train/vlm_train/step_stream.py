"""The steps of a run over its epochs, from any place on: tables are written as they are needed, rows encoded ahead."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count

import pyarrow as pa

from vlm_train.epoch_files import EpochFiles
from vlm_train.planned_rows import PlannedRow, planned_rows
from vlm_train.rank_rows import rows_of_rank
from vlm_train.ranks import Ranks
from vlm_train.run_plan import RunPlan
from vlm_train.stream import EncodedRow, encoded_in_order, steps_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A step among those of its epoch and of the run, all from 0."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    steps_of_epoch: int | None = None
    """None where the epoch is not planned to its end yet."""

    def next(self) -> "Place":
        """The place of the step that follows."""
        if self.epoch_step + 1 == self.steps_of_epoch:
            return Place(step=self.step + 1, epoch=self.epoch + 1)
        return replace(self, step=self.step + 1, epoch_step=self.epoch_step + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The rows of this rank in one step."""

    place: Place
    rows: list[EncodedRow]


def encoded_steps(
    first: Place,
    *,
    plan: RunPlan,
    files_of: Callable[[int], EpochFiles],
    ranks: Ranks,
    encode: Callable[[Sequence[PlannedRow]], EncodedRow],
    num_workers: int,
) -> Generator[Step]:
    """The steps from ``first`` to the end of the last epoch; the table of a step is written before it trains.

    Close the generator to stop the threads that encode.
    """
    place, size = first, plan.order.rows_per_step
    for epoch in range(first.epoch, plan.epochs):
        place = place if epoch == first.epoch else Place(step=place.step, epoch=epoch)
        files = files_of(epoch)
        place = replace(place, steps_of_epoch=_steps_of_epoch(files, plan, ranks))
        rows = rows_of_rank(
            _rows(files, ranks, place.epoch_step), rows_per_step=size, rank=ranks.rank, num_ranks=ranks.size
        )
        with closing(encoded_in_order(rows, encode, num_workers=num_workers)) as encoded:
            for encoded_rows in steps_of(encoded, rows_per_step=size // ranks.size):
                yield Step(place=place, rows=encoded_rows)
                place = place.next()


def _steps_of_epoch(files: EpochFiles, plan: RunPlan, ranks: Ranks) -> int | None:
    return ranks.first_then_all(files.num_steps) if plan.needs_totals else plan.steps_per_epoch


def _rows(files: EpochFiles, ranks: Ranks, first_step: int) -> Iterator[tuple[PlannedRow, ...]]:
    tables = _tables(files, ranks)
    return chain.from_iterable(planned_rows(table, first_step=first_step) for table in tables)


def _tables(files: EpochFiles, ranks: Ranks) -> Iterator[pa.Table]:
    """The parts of an epoch; the first rank writes them, all read them, each when its turn comes."""
    for number in count():
        part = ranks.first_then_all(partial(files.part, number))
        yield part.table
        if part.num_steps is not None:
            return
