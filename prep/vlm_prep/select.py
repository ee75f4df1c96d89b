"""Which converted samples a mix uses: one question to the index; no shard is opened, nothing is rewritten."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from vlm_catalogs.errors import DataError
from vlm_catalogs.tables import SELECTION
from vlm_prep.sql import read_sql
from vlm_prep.where import Condition, Tables, refused_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The index files that a mix is selected from."""

    samples: tuple[Path, ...]
    lengths: tuple[Path, ...]
    media: tuple[Path, ...] = ()
    """Read only when there are conditions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides the selection."""

    fractions: Mapping[str, float]
    """Dataset -> fraction of its usable samples; 1 for all."""
    include_video: bool
    model_max_length: int
    seed: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejections:
    """How many samples of a dataset left by one door."""

    dataset: str
    reason: str
    num_samples: int
    example: str
    detail: str


def open_index(scratch: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection of its own, that spills to ``scratch`` when memory is short."""
    return duckdb.connect(config={"temp_directory": str(scratch / "duckdb")})


def select_samples(index: duckdb.DuckDBPyConnection, population: Population, rules: Rules) -> pa.Table:
    """The selection, as tables.SELECTION, ordered by (dataset, sample_id). Raises DataError for keys that collide."""
    samples = [str(path) for path in population.samples]
    collision = index.execute(read_sql("collisions.sql"), {"samples": samples}).fetchone()
    if collision is not None:
        _, dataset, sample_id, other_id = collision
        raise DataError(f"{dataset}: samples {sample_id!r} and {other_id!r} have one sample_key; ids must be unique")
    tables = Tables(samples=population.samples, lengths=population.lengths, media=population.media)
    index.register("refused", refused_samples(tables, rules.conditions))
    parameters = {
        "samples": samples,
        "lengths": [str(path) for path in population.lengths],
        "datasets": list(rules.fractions),
        "fractions": list(rules.fractions.values()),
        "include_video": rules.include_video,
        "model_max_length": rules.model_max_length,
        "seed": rules.seed,
    }
    return index.sql(read_sql("selection.sql"), params=parameters).to_arrow_table().cast(SELECTION)


def read_rejections(index: duckdb.DuckDBPyConnection, samples: Sequence[Path]) -> list[Rejections]:
    """What conversion left out, by dataset and reason."""
    rows = index.execute(read_sql("outcomes.sql"), {"samples": [str(path) for path in samples]}).fetchall()
    return [
        Rejections(dataset=dataset, reason=reason, num_samples=number, example=example, detail=detail)
        for dataset, reason, number, example, detail in rows
    ]
