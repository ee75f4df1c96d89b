"""Planned rows to encoded rows, in order: samples are read by their place, media decoded by background threads.

Threads are enough: decoding and resizing release the interpreter. What is left to whoever asks is to take the step that
another thread has made whole. A failing row fails the step that it stands in; the stream neither hangs nor ends early.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

from vlm_catalogs.errors import DataError
from vlm_catalogs.render import Renderer, RenderProblem
from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import Sample
from vlm_train.encode import UndecodableMedia
from vlm_train.models.family import EncodedSample, Family
from vlm_train.planned_rows import NUM_EMPTY_TOKENS, PlannedRow
from vlm_train.sample_store import SampleStore

ROWS_AHEAD_PER_WORKER = 4
Planned = TypeVar("Planned")
Encoded = TypeVar("Encoded")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One row as tensors; ``problems`` say which samples stand there blank, without labels, and why."""

    planned: tuple[PlannedRow, ...]
    samples: tuple[EncodedSample, ...]
    problems: tuple[str, ...] = ()


class RowEncoder:
    """Encodes planned rows. Up to ``max_bad_samples`` samples that do not decode are shown blank, without labels."""

    def __init__(
        self,
        store: SampleStore,
        family: Family,
        renderers: Mapping[str, Renderer],
        *,
        max_bad_samples: int,
        aside: bool = False,
    ) -> None:
        """``aside``: its rows are of no plan (see ``SampleStore.read``)."""
        self._store = store
        self._family = family
        self._renderers = renderers
        self._max_bad_samples = max_bad_samples
        self._aside = aside
        self._bad: set[str] = set()
        self._lock = threading.Lock()

    def encode(self, row: Sequence[PlannedRow]) -> EncodedRow:
        """The tensors of one row, of one sample or several.

        Raises DataError for a sample that is not as planned, or one bad sample too many.
        """
        encoded = [self._encode_one(planned) for planned in row]
        return EncodedRow(
            planned=tuple(row),
            samples=tuple(sample for sample, _ in encoded),
            problems=tuple(problem for _, problem in encoded if problem is not None),
        )

    def _encode_one(self, row: PlannedRow) -> tuple[EncodedSample, str | None]:
        """One sample, and why it is blank where it is."""
        if row.status == "empty":
            return self._empty(), None
        sample = self._store.read(row, aside=self._aside)
        rendered = self._render(row, sample)
        try:
            return self._family.encode(sample, rendered), None
        except UndecodableMedia as error:
            self._count_bad(row, error)
            return self._family.encode(sample, rendered, blank=True), str(error)

    def _render(self, row: PlannedRow, sample: Sample) -> Rendered:
        try:
            rendered = self._renderers[row.dataset].render(sample.conversation(row.alternative), sample.media_table)
        except RenderProblem as problem:
            raise DataError(f"{row.name}: cannot be rendered, but was measured: {problem}") from problem
        found = (rendered.total_tokens, rendered.supervised_tokens)
        if found != (row.tokens, row.supervised_tokens):
            raise DataError(
                f"{row.name}: {found[0]} tokens, {found[1]} supervised; measured were {row.tokens} and "
                f"{row.supervised_tokens}; run vlm-prep build-mix again"
            )
        return rendered

    def _count_bad(self, row: PlannedRow, error: UndecodableMedia) -> None:
        with self._lock:
            self._bad.add(row.name)
            if len(self._bad) <= self._max_bad_samples:
                return
        allowed = f"[stream] max_bad_samples = {self._max_bad_samples}"
        raise DataError(f"{error}; {self._store.lineage(row)}; {allowed} such samples are allowed now") from error

    def _empty(self) -> EncodedSample:
        renderer = next(iter(self._renderers.values()))
        ids_T = torch.full((NUM_EMPTY_TOKENS,), renderer.token_ids.turn_end, dtype=torch.int64)
        return EncodedSample(
            dataset="", sample_id="", input_ids_T=ids_T, labels_T=torch.full_like(ids_T, IGNORED), media=()
        )


def planned_samples(rows: Iterable[EncodedRow]) -> list[PlannedRow]:
    """The samples of the rows in order, without what only fills a step."""
    return [line for row in rows for line in row.planned if line.status != "empty"]


def steps_of(rows: Iterable[Planned], *, rows_per_step: int) -> Iterator[list[Planned]]:
    """The rows step by step."""
    step: list[Planned] = []
    for row in rows:
        step.append(row)
        if len(step) == rows_per_step:
            yield step
            step = []
    if step:
        raise DataError(f"the epoch table ends within a step: {len(step)} of {rows_per_step} rows")


def made_in_order(
    groups: Iterable[Sequence[Planned]],
    encode: Callable[[Planned], Encoded],
    make: Callable[[list[Encoded]], Made],
    *,
    num_workers: int,
) -> Generator[Made]:
    """What ``make`` makes of the encoded rows of each group, a step or a batch, in the order of ``groups``.

    ``num_workers`` threads encode ahead and one more makes: a whole group at least, and 4 rows for each worker; 0 does
    all of it when it is asked for. ``groups`` is read by the caller's thread. An error of ``encode`` or ``make`` is
    raised where its group would have come. Close the generator to stop the threads.
    """
    if num_workers == 0:
        for group in groups:
            yield make([encode(row) for row in group])
        return
    encoders = ThreadPoolExecutor(num_workers, thread_name_prefix="encode")
    maker = ThreadPoolExecutor(1, thread_name_prefix="make")
    waiting: deque[tuple[int, Future[Made]]] = deque()
    try:
        for group in groups:
            rows = [encoders.submit(encode, row) for row in group]
            waiting.append((len(rows), maker.submit(_made, rows, make)))
            while sum(size for size, _ in islice(waiting, 1, None)) >= max(1, num_workers * ROWS_AHEAD_PER_WORKER):
                yield waiting.popleft()[1].result()
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        encoders.shutdown(wait=True, cancel_futures=True)  # first: the maker waits for rows
        maker.shutdown(wait=True, cancel_futures=True)


def _made(rows: Sequence[Future[Encoded]], make: Callable[[list[Encoded]], Made]) -> Made:
    return make([row.result() for row in rows])
