"""Planned rows to encoded rows, in order: shards are read by index and checked, media decoded by background threads.

Threads are enough: decoding and resizing release the interpreter. A failing row fails the step that asks for it; the
stream neither hangs nor ends early.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.layout import read_part, shard_name
from vlm_catalogs.render import Renderer, RenderProblem
from vlm_catalogs.render.rendered import IGNORED, Rendered
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_train.encode import UndecodableMedia
from vlm_train.models.family import EncodedSample, Family
from vlm_train.open_mix import OpenMix

MAX_OPEN_SHARDS = 128
"""Maps held at a time; each takes a file descriptor."""
ROWS_AHEAD_PER_WORKER = 4
Planned = TypeVar("Planned")
Encoded = TypeVar("Encoded")

NUM_EMPTY_TOKENS = 2
"""An empty row still has something to predict from, so that every call of the model has its usual shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One line of the epoch table, as far as training needs it; ``status`` is ``planned`` or ``empty``."""

    step: int
    row: int
    position: int
    dataset: str
    sample_id: str
    sample_key: int
    alternative: int
    part: str
    shard: int
    index_in_shard: int
    tokens: int
    supervised_tokens: int
    vision_patches: int
    status: str

    @property
    def name(self) -> str:
        """``dataset/sample_id``, for people."""
        return f"{self.dataset}/{self.sample_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One row as tensors; ``problems`` say which samples stand there blank, without labels, and why."""

    planned: tuple[PlannedRow, ...]
    samples: tuple[EncodedSample, ...]
    problems: tuple[str, ...] = ()


class SampleStore:
    """Reads samples of a mix by their place. A shard is compared with its hash when it is first opened."""

    def __init__(self, mix: OpenMix) -> None:
        self._mix = mix
        self._open: OrderedDict[tuple[str, str, int], ShardReader] = OrderedDict()
        self._verified: set[tuple[str, str, int]] = set()
        self._lock = threading.Lock()

    def read(self, row: PlannedRow) -> Sample:
        """The sample of ``row``. Raises DataError, with its lineage, when the shard is not what the mix pins."""
        with self._lock:
            reader = self._reader(row)
            try:
                sample = reader.read(row.index_in_shard)
            except DataError as error:
                raise DataError(f"{error}; {self._damage(row)}") from error
        if (sample.dataset, sample.sample_id) != (row.dataset, row.sample_id):
            found = f"{sample.dataset}/{sample.sample_id}"
            raise DataError(f"{self._shard(row)}: sample {row.index_in_shard} is {found}, planned was {row.name}")
        return sample

    def lineage(self, row: PlannedRow) -> str:
        """Where the sample of ``row`` came from."""
        origin = next((one for one in self._same_shard(row) if one["sample_id"] == row.sample_id), None)
        came_from = f"{origin['source_uri']} {origin['member'] or ''}".strip() if origin else "a source unknown"
        return f"sample {row.name} came from {came_from}"

    def close(self) -> None:
        """Let go of all shards."""
        while self._open:
            self._open.popitem()[1].close()

    def _reader(self, row: PlannedRow) -> ShardReader:
        key = (row.dataset, row.part, row.shard)
        if key not in self._open:
            self._open[key] = self._open_shard(key, row)
        self._open.move_to_end(key)
        if len(self._open) > MAX_OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        return self._open[key]

    def _open_shard(self, key: tuple[str, str, int], row: PlannedRow) -> ShardReader:
        try:
            reader = ShardReader(self._shard(row))
            if key not in self._verified:
                reader.verify(self._recorded_hash(row))
                self._verified.add(key)
        except (DataError, StorageError) as error:
            raise type(error)(f"{error}; {self._damage(row)}") from error
        return reader

    def _recorded_hash(self, row: PlannedRow) -> str:
        return read_part(self._mix.part(row.dataset, row.part)).shards[row.shard].xxh3_128

    def _shard(self, row: PlannedRow) -> Path:
        return self._mix.part(row.dataset, row.part) / shard_name(row.shard)

    def _damage(self, row: PlannedRow) -> str:
        """What a damaged shard takes with it, and what to do."""
        names = _some(one["sample_id"] for one in self._same_shard(row)) or "not known"
        folder = self._mix.part(row.dataset, row.part)
        return (
            f"{self.lineage(row)}; samples of {row.dataset} in this shard: {names}; "
            f"move {folder} away and run vlm-prep build-mix to convert it again"
        )

    def _same_shard(self, row: PlannedRow) -> list[dict[str, Any]]:
        """The samples beside ``row``; none where the index is damaged too: the first damage is said all the same."""
        path = self._mix.part(row.dataset, row.part) / "samples.parquet"
        filters = [("shard", "=", row.shard), ("status", "=", "kept")]
        try:
            table = pq.read_table(path, columns=["sample_id", "source_uri", "member"], filters=filters)
        except (OSError, pa.ArrowException):
            return []
        return table.to_pylist()  # type: ignore[no-any-return]


class RowEncoder:
    """Encodes planned rows. Up to ``max_bad_samples`` samples that do not decode are shown blank, without labels."""

    def __init__(
        self, store: SampleStore, family: Family, renderers: Mapping[str, Renderer], *, max_bad_samples: int
    ) -> None:
        self._store = store
        self._family = family
        self._renderers = renderers
        self._max_bad_samples = max_bad_samples
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
        sample = self._store.read(row)
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


def planned_rows(table: pa.Table, *, first_step: int = 0) -> Iterator[tuple[PlannedRow, ...]]:
    """The rows of an epoch table from ``first_step`` on, in order, each with its samples in theirs."""
    for _, lines in groupby(_lines(table, first_step), key=lambda line: (line.step, line.row)):
        yield tuple(lines)


def planned_samples(rows: Iterable[EncodedRow]) -> list[PlannedRow]:
    """The samples of the rows in order, without what only fills a step."""
    return [line for row in rows for line in row.planned if line.status != "empty"]


def _lines(table: pa.Table, first_step: int) -> Iterator[PlannedRow]:
    names = list(PlannedRow.__dataclass_fields__)
    for batch in table.select(names).to_batches(max_chunksize=4096):
        for fields in batch.to_pylist():
            if fields["step"] >= first_step:
                yield PlannedRow(**fields)


def steps_of(rows: Iterable[Encoded], *, rows_per_step: int) -> Iterator[list[Encoded]]:
    """The rows step by step."""
    step: list[Encoded] = []
    for row in rows:
        step.append(row)
        if len(step) == rows_per_step:
            yield step
            step = []
    if step:
        raise DataError(f"the epoch table ends within a step: {len(step)} of {rows_per_step} rows")


def encoded_in_order(
    rows: Iterable[Planned], encode: Callable[[Planned], Encoded], *, num_workers: int
) -> Generator[Encoded]:
    """``encode`` of each row, in the order of ``rows``; ``num_workers`` threads work ahead, 0 encodes on demand.

    An error of ``encode`` is raised where its row would have come. Close the generator to stop the threads.
    """
    if num_workers == 0:
        yield from map(encode, rows)
        return
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="encode")
    waiting: deque[Future[Encoded]] = deque()
    try:
        for row in rows:
            waiting.append(pool.submit(encode, row))
            if len(waiting) >= num_workers * ROWS_AHEAD_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _some(names: Iterable[Any], limit: int = 5) -> str:
    every = [str(name) for name in names]
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
