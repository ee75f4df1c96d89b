"""The steps of a run over its epochs, from any place on: tables are written as they are needed, rows encoded ahead."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count

import pyarrow as pa

from vlm_train.epoch_files import EpochFiles
from vlm_train.planned_rows import PlannedRow, planned_rows
from vlm_train.rank_rows import Flags, lines_of_ranks, rows_of_rank
from vlm_train.ranks import Ranks
from vlm_train.run_plan import RunPlan
from vlm_train.sample_store import SampleStore
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
    store: SampleStore,
) -> Generator[Step]:
    """The steps from ``first`` to the end of the last epoch; the table of a step is written before it trains.

    ``store`` is told what comes and how far the steps are. Close the generator to stop the threads that encode.
    """
    node = ranks.of_this_node()
    place, size = first, plan.order.rows_per_step
    for epoch in range(first.epoch, plan.epochs):
        place = place if epoch == first.epoch else Place(step=place.step, epoch=epoch)
        files = files_of(epoch)
        place = replace(place, steps_of_epoch=_steps_of_epoch(files, plan, ranks))
        tables = _announced(
            _tables(files, ranks),
            partial(store.plan, epoch=epoch, first_step=place.epoch_step),
            lines=partial(lines_of_ranks, rows_per_step=size, ranks=node, num_ranks=ranks.size),
        )
        rows = rows_of_rank(
            chain.from_iterable(planned_rows(table, first_step=place.epoch_step) for table in tables),
            rows_per_step=size,
            rank=ranks.rank,
            num_ranks=ranks.size,
        )
        with closing(encoded_in_order(rows, encode, num_workers=num_workers)) as encoded:
            for encoded_rows in steps_of(encoded, rows_per_step=size // ranks.size):
                store.reached(epoch=epoch, step=place.epoch_step)
                yield Step(place=place, rows=encoded_rows)
                place = place.next()


def _steps_of_epoch(files: EpochFiles, plan: RunPlan, ranks: Ranks) -> int | None:
    return ranks.first_then_all(files.num_steps) if plan.needs_totals else plan.steps_per_epoch


def _announced(
    tables: Iterator[pa.Table], announce: Callable[[pa.Table], None], *, lines: Callable[[pa.Table], Flags]
) -> Iterator[pa.Table]:
    """The tables; ``lines`` of each are announced before the one ahead of it is read, so that shards come in time."""
    waiting = None
    for table in tables:
        announce(table.filter(pa.array(lines(table))))
        if waiting is not None:
            yield waiting
        waiting = table
    if waiting is not None:
        yield waiting


def _tables(files: EpochFiles, ranks: Ranks) -> Iterator[pa.Table]:
    """The parts of an epoch; the first rank writes them, all read them, each when its turn comes."""
    for number in count():
        part = ranks.first_then_all(partial(files.part, number))
        yield part.table
        if part.num_steps is not None:
            return
