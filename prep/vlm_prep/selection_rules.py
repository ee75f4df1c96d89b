"""The rules of selection, one function each: which of the remaining samples leave, and why (semantics B1).

Each works on tables of one DuckDB connection: ``candidates``, ``left_out`` (sample_key, reason), the view ``remaining``
and ``eval_samples``; candidates.sql makes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from vlm_prep.connected import label_components
from vlm_prep.sql import read_sql


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateRule:
    """Which samples count as one, and which of them stays."""

    by: str
    """``none``, ``text``, ``media`` or ``both``."""
    near: int | None = None
    """Bits in which perceptual hashes may differ for pictures to count as equal; None compares bytes only."""
    across: bool = True
    """Over all datasets; False looks inside each."""
    priority: tuple[str, ...] = ()
    """Datasets whose samples stay before those of others, the first before the second."""

    def parameters(self) -> dict[str, object]:
        """As the questions take them."""
        return {"by": self.by, "across": self.across, "priority": list(self.priority)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRule:
    """How much of each dataset is held out for validation: a fraction of what remains, or a number of samples."""

    fraction: float | None = None
    num_samples: int | None = None
    datasets: tuple[str, ...] = ()
    """() is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The most that train has of each dataset."""

    fractions: Mapping[str, float]
    """Dataset -> fraction of its usable samples; 1 for all. Every dataset stands here."""
    max_samples: Mapping[str, int] = field(default_factory=dict)
    max_tokens: Mapping[str, int] = field(default_factory=dict)

    def limits(self, dataset: str) -> bool:
        """Is there a most for it, besides its fraction?"""
        return dataset in self.max_samples or dataset in self.max_tokens


def leave_out_undecodable(index: duckdb.DuckDBPyConnection, *, media: list[str], decoded: list[str]) -> None:
    """Samples that show a medium which does not decode leave."""
    index.execute(read_sql("left_out_as_undecodable.sql"), {"media": media, "decoded": decoded})


def leave_out_video(index: duckdb.DuckDBPyConnection) -> None:
    """Samples with a video leave."""
    index.execute("insert into left_out select sample_key, 'video_not_included' from remaining where num_videos > 0")


def leave_out_refused(index: duckdb.DuckDBPyConnection, refused: pa.Table) -> None:
    """What ``refused`` (sample_key, reason) names leaves."""
    index.register("refused", refused)
    index.execute(
        "insert into left_out select sample_key, refused.reason from remaining join refused using (sample_key)"
    )
    index.unregister("refused")


def leave_out_listed(
    index: duckdb.DuckDBPyConnection, *, included: pa.Table | None, excluded: pa.Table | None
) -> list[str]:
    """What ``excluded`` names leaves; with ``included``, what that does not name. Both: dataset, sample_id.

    Says of each list how much of it is of no sample: an id that is spelled otherwise would change nothing, quietly.
    """
    nothing = pa.table({"dataset": pa.array([], pa.string()), "sample_id": pa.array([], pa.string())})
    lists = {"included": included, "excluded": excluded}
    for name, rows in lists.items():
        index.register(name, nothing if rows is None else rows)
    index.execute(read_sql("left_out_by_lists.sql"), {"has_include": included is not None})
    notes = [text for name, rows in lists.items() if rows is not None for text in _unknown(index, name)]
    for name in lists:
        index.unregister(name)
    return notes


def _unknown(index: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    [(number, of_all, example)] = index.execute(read_sql("unknown_in_list.sql").replace("listed_rows", name)).fetchall()
    if not number:
        return []
    key = f"mix.select.{name.removesuffix('d')}"
    return [f"{key}: {number:,} of {of_all:,} ids are of no converted sample, such as {example}"]


def leave_out_held_out(index: duckdb.DuckDBPyConnection, held_out: pa.Table, *, media: list[str]) -> None:
    """Samples that share a medium with ``held_out`` (hash) leave, or, where they have no media, the text."""
    index.register("held_out", held_out)
    index.execute(read_sql("left_out_as_held_out.sql"), {"media": media})
    index.unregister("held_out")


def leave_out_duplicates(index: duckdb.DuckDBPyConnection, rule: DuplicateRule) -> None:
    """All but one of the samples that are alike leave."""
    index.execute(read_sql("left_out_as_duplicates.sql"), rule.parameters())


def leave_out_by_length(index: duckdb.DuckDBPyConnection, *, model_max_length: int) -> None:
    """What cannot become tokens, is too long or has nothing to learn from leaves."""
    index.execute(read_sql("left_out_by_length.sql"), {"model_max_length": model_max_length})


def hold_out_datasets(index: duckdb.DuckDBPyConnection, datasets: Sequence[str], caps: Caps, *, seed: int) -> None:
    """All that remains of ``datasets`` goes to the eval split; first what is over their fractions leaves."""
    leave_out_by_caps(index, Caps(fractions={name: caps.fractions[name] for name in datasets}), seed=seed)
    index.execute(
        "insert into eval_samples select sample_key from remaining where list_contains($datasets::varchar[], dataset)",
        {"datasets": list(datasets)},
    )


def split_eval(index: duckdb.DuckDBPyConnection, rule: EvalRule, *, media: list[str], seed: int) -> None:
    """Groups of samples that share media go to the eval split as a whole, in seeded order, until there are enough."""
    index.execute(read_sql("media_edges.sql"), {"media": media})
    label_components(index)
    parameters = {
        "seed": seed,
        "datasets": list(rule.datasets),
        "fraction": rule.fraction,
        "num_samples": rule.num_samples,
    }
    index.execute(read_sql("eval_samples.sql"), parameters)
    index.execute("drop table labels")


def leave_out_by_caps(index: duckdb.DuckDBPyConnection, caps: Caps, *, seed: int) -> None:
    """What is over a fraction, a number of samples or of tokens leaves, in seeded order; the eval split stays."""
    names = [name for name, fraction in caps.fractions.items() if fraction < 1 or caps.limits(name)]
    if not names:
        return  # putting millions of samples in order takes longer than any other rule
    parameters = {
        "datasets": names,
        "fractions": [caps.fractions[name] for name in names],
        "max_samples": [caps.max_samples.get(name) for name in names],
        "max_tokens": [caps.max_tokens.get(name) for name in names],
        "seed": seed,
    }
    index.execute(read_sql("left_out_by_caps.sql"), parameters)
