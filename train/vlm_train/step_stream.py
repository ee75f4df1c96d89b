"""The steps of a run over its epochs, from any place on: tables are written as they are needed, batches made ahead."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, tee
from typing import NamedTuple

import pyarrow as pa

from vlm_train.epoch_files import EpochFiles
from vlm_train.loss_weights import LossGroups
from vlm_train.models.family import Batch, EncodedSample
from vlm_train.planned_rows import PlannedRow, planned_rows
from vlm_train.rank_rows import Flags, lines_of_ranks, row_sharing, rows_of_rank
from vlm_train.ranks import Ranks
from vlm_train.run_plan import RunPlan
from vlm_train.sample_store import SampleStore
from vlm_train.stream import EncodedRow, made_in_order, planned_samples, steps_of


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
    """What this rank has in one step."""

    place: Place
    batches: list[Batch]
    samples: list[PlannedRow]
    """In the order of their rows, without what only fills the step."""
    groups: LossGroups
    """The micro-batches of the step over all ranks."""
    problems: list[str]
    """Which of them stand there blank, and why."""


class _PlannedStep(NamedTuple):
    place: Place
    rows: list[tuple[PlannedRow, ...]]


def encoded_steps(
    first: Place,
    *,
    plan: RunPlan,
    files_of: Callable[[int], EpochFiles],
    ranks: Ranks,
    encode: Callable[[Sequence[PlannedRow]], EncodedRow],
    collate: Callable[[Sequence[Sequence[EncodedSample]]], Batch],
    num_workers: int,
    store: SampleStore,
) -> Generator[Step]:
    """The steps from ``first`` to the end of the run, made ahead; the table of a step is written before it trains.

    Ranks talk only where a step is asked for. ``store`` is told what comes and how far the steps are. Close the
    generator to stop the threads.
    """
    planned, to_make = tee(_planned_steps(first, plan=plan, files_of=files_of, ranks=ranks, store=store))
    make = partial(_batches, collate=collate, mini_batch=plan.mini_batch)
    with closing(made_in_order((step.rows for step in to_make), encode, make, num_workers=num_workers)) as made:
        for (place, _), (rows, batches) in zip(planned, made, strict=False):  # the first is exhausted first
            store.reached(epoch=place.epoch, step=place.epoch_step)
            problems = [problem for row in rows for problem in row.problems]
            groups = _groups(rows, mini_batch=plan.mini_batch, rows_per_step=plan.order.rows_per_step)
            yield Step(place=place, batches=batches, samples=planned_samples(rows), problems=problems, groups=groups)


def _batches(
    rows: list[EncodedRow], *, collate: Callable[[Sequence[Sequence[EncodedSample]]], Batch], mini_batch: int
) -> tuple[list[EncodedRow], list[Batch]]:
    """The rows beside their micro-batches."""
    begins = range(0, len(rows), mini_batch)
    return rows, [collate([row.samples for row in rows[begin : begin + mini_batch]]) for begin in begins]


def _groups(rows: Sequence[EncodedRow], *, mini_batch: int, rows_per_step: int) -> LossGroups:
    """Rows of the step that follow each other, whichever ranks they are dealt to."""
    of_samples = [line.row // mini_batch for row in rows for line in row.planned]
    return LossGroups(of_samples=of_samples, number=rows_per_step // mini_batch)


def _planned_steps(
    first: Place, *, plan: RunPlan, files_of: Callable[[int], EpochFiles], ranks: Ranks, store: SampleStore
) -> Iterator[_PlannedStep]:
    """The steps of this rank, one epoch after another, no further than the run is sure to go."""
    nodes = ranks.nodes()
    sharing = row_sharing(plan.order, nodes=nodes, fetched=store.remote_datasets)
    node = next(node for node in nodes if ranks.rank in node)
    place = first
    for epoch in range(first.epoch, plan.epochs):
        place = place if epoch == first.epoch else Place(step=place.step, epoch=epoch)
        files = files_of(epoch)
        place = replace(place, steps_of_epoch=_steps_of_epoch(files, plan, ranks))
        tables = _announced(
            _tables(files, ranks),
            partial(store.plan, epoch=epoch, first_step=place.epoch_step),
            lines=partial(lines_of_ranks, sharing=sharing, ranks=node),
        )
        rows = rows_of_rank(
            chain.from_iterable(planned_rows(table, first_step=place.epoch_step) for table in tables),
            sharing=sharing,
            rank=ranks.rank,
        )
        for mine in steps_of(rows, rows_per_step=plan.order.rows_per_step // ranks.size):
            yield _PlannedStep(place, mine)
            place = place.next()
            if plan.is_exact and place.step >= plan.total_steps:
                return


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
