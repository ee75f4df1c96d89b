"""Which converted samples a mix uses: one question to the index; no shard is opened, nothing is rewritten."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.tables import SELECTION
from vlm_prep.near_duplicates import leave_out_near_duplicates
from vlm_prep.selection_rules import (
    Caps,
    DuplicateRule,
    EvalRule,
    hold_out_datasets,
    leave_out_by_caps,
    leave_out_by_length,
    leave_out_duplicates,
    leave_out_held_out,
    leave_out_listed,
    leave_out_refused,
    leave_out_undecodable,
    leave_out_video,
    split_eval,
)
from vlm_prep.sql import read_sql
from vlm_prep.where import Condition, Tables, refused_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The index files that a mix is selected from."""

    samples: tuple[Path, ...]
    lengths: tuple[Path, ...]
    media: tuple[Path, ...] = ()
    """Read only by rules about media."""
    decoded: tuple[Path, ...] | None = None
    """The decoded facts, where they are asked for."""


FILES = ("samples", "lengths", "media")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides the selection."""

    caps: Caps
    """Names every dataset."""
    include_video: bool
    model_max_length: int
    seed: int
    conditions: tuple[Condition, ...] = ()
    scores: Mapping[str, pa.Table] = field(default_factory=dict)
    """Tables that conditions may name."""
    included: pa.Table | None = None
    excluded: pa.Table | None = None
    held_out: pa.Table | None = None
    validation: tuple[str, ...] = ()
    """Datasets of which every sample is held out for validation."""
    duplicates: DuplicateRule | None = None
    eval_split: EvalRule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejections:
    """How many samples of a dataset left by one door."""

    dataset: str
    reason: str
    num_samples: int
    example: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was decided."""

    rows: pa.Table
    """As tables.SELECTION, ordered by (dataset, sample_id)."""
    notes: tuple[str, ...] = ()
    """What rules have to say besides."""


@contextmanager
def open_index(scratch: Path, *, max_bytes: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection of its own, that spills to ``scratch`` when memory (``max_bytes``) is short.

    Raises StorageError, within it too, when neither memory nor ``scratch`` has room for a question.
    """
    try:
        with duckdb.connect(config={"temp_directory": str(scratch / "duckdb")}) as index:
            if max_bytes is not None:
                index.execute("set memory_limit = $limit", {"limit": f"{max_bytes}B"})
            yield index
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        problem = str(error).partition("\n")[0]
        raise StorageError(f"{scratch}: the index cannot be asked, for lack of memory or disk: {problem}") from error


def select_samples(index: duckdb.DuckDBPyConnection, population: Population, rules: Rules) -> Selection:
    """Which samples a mix uses. Raises DataError for keys that collide."""
    samples, lengths, media = ([str(path) for path in getattr(population, name)] for name in FILES)
    notes: list[str] = []
    _refuse_collisions(index, samples)
    index.execute(read_sql("candidates.sql"), {"samples": samples, "lengths": lengths})
    index.execute(read_sql("decisions.sql"))
    if population.decoded is not None:
        leave_out_undecodable(index, media=media, decoded=[str(path) for path in population.decoded])
    if not rules.include_video:
        leave_out_video(index)
    if rules.conditions:
        tables = Tables(samples=population.samples, lengths=population.lengths, media=population.media)
        leave_out_refused(index, refused_samples(tables, rules.conditions, scores=rules.scores, like=index))
    if rules.included is not None or rules.excluded is not None:
        notes += leave_out_listed(index, included=rules.included, excluded=rules.excluded)
    if rules.held_out is not None:
        leave_out_held_out(index, rules.held_out, media=media)
    if rules.duplicates is not None:
        notes += _leave_out_alike(index, rules.duplicates, population)
    leave_out_by_length(index, model_max_length=rules.model_max_length)
    if rules.validation:
        hold_out_datasets(index, rules.validation, rules.caps, seed=rules.seed)
    if rules.eval_split is not None:
        split_eval(index, rules.eval_split, media=media, seed=rules.seed)
    leave_out_by_caps(index, rules.caps, seed=rules.seed)
    rows = index.sql(read_sql("selection.sql")).to_arrow_table().cast(SELECTION)
    return Selection(rows=rows, notes=tuple(notes))


def _leave_out_alike(index: duckdb.DuckDBPyConnection, rule: DuplicateRule, population: Population) -> list[str]:
    """Duplicates leave, exact ones first; what there is to say of near ones."""
    if rule.by != "none":
        leave_out_duplicates(index, rule)
    if rule.near is None:
        return []
    assert population.decoded is not None
    return leave_out_near_duplicates(index, rule, decoded=[str(path) for path in population.decoded])


def _refuse_collisions(index: duckdb.DuckDBPyConnection, samples: list[str]) -> None:
    collision = index.execute(read_sql("collisions.sql"), {"samples": samples}).fetchone()
    if collision is not None:
        _, dataset, sample_id, other_id = collision
        raise DataError(f"{dataset}: samples {sample_id!r} and {other_id!r} have one sample_key; ids must be unique")


def read_rejections(index: duckdb.DuckDBPyConnection, samples: Sequence[Path]) -> list[Rejections]:
    """What conversion left out, by dataset and reason."""
    rows = index.execute(read_sql("outcomes.sql"), {"samples": [str(path) for path in samples]}).fetchall()
    return [
        Rejections(dataset=dataset, reason=reason, num_samples=number, example=example, detail=detail)
        for dataset, reason, number, example, detail in rows
    ]
