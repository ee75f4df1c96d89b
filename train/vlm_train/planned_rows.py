"""The rows of an epoch table, in order, each with its samples: what the table says as far as training needs it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

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


def empty_line() -> PlannedRow:
    """A line without a sample, which makes a row count for nothing."""
    numbers = dict.fromkeys(("step", "row", "position", "sample_key", "alternative", "shard", "index_in_shard"), 0)
    tokens = dict.fromkeys(("tokens", "supervised_tokens", "vision_patches"), 0)
    return PlannedRow(dataset="", sample_id="", part="", status="empty", **numbers, **tokens)


def planned_rows(table: pa.Table, *, first_step: int = 0) -> Iterator[tuple[PlannedRow, ...]]:
    """The rows of an epoch table from ``first_step`` on, in order, each with its samples in theirs."""
    for _, lines in groupby(_lines(table, first_step), key=lambda line: (line.step, line.row)):
        yield tuple(lines)


def _lines(table: pa.Table, first_step: int) -> Iterator[PlannedRow]:
    names = list(PlannedRow.__dataclass_fields__)
    for batch in table.select(names).to_batches(max_chunksize=4096):
        for fields in batch.to_pylist():
            if fields["step"] >= first_step:
                yield PlannedRow(**fields)
