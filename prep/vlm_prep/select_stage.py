"""The stage that selects: what a mix is selected from, by which rules, and how much of it there is."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vlm_catalogs.config import Config
from vlm_catalogs.console import note
from vlm_catalogs.errors import DataError
from vlm_prep.build_plan import BuildPlan
from vlm_prep.compaction import compacted_for_selection
from vlm_prep.fact_files import DECODED_NAME, asks_for_decoding
from vlm_prep.lengths import describe_shortened, lengths_name
from vlm_prep.mix import PreparedSource, repeat_factor
from vlm_prep.reasons import meaning_of
from vlm_prep.select import Population, Rules
from vlm_prep.select_settings import read_rules


def selection_rules(config: Config, plan: BuildPlan) -> Rules:
    """The rules that the TOML asks for. Raises ConfigError or DataError."""
    fractions = {one.source.name: min(repeat_factor(one.source), 1.0) for one in plan.sources}
    return read_rules(config, fractions, held_out=[one.source.name for one in plan.sources if one.source.is_held_out])


def population_of(config: Config, prepared: Sequence[PreparedSource]) -> Population:
    """The index files of what is converted and measured, and decoded where the TOML asks for that."""
    lengths = [path for source in prepared for path in index_files(source, lengths_name(source.encoding))]
    is_decoded = asks_for_decoding(config)
    decoded = [path for source in prepared if is_decoded for path in index_files(source, DECODED_NAME)]
    return Population(
        samples=tuple(path for source in prepared for path in index_files(source, "samples.parquet")),
        lengths=tuple(lengths),
        media=tuple(path for source in prepared for path in index_files(source, "media.parquet")),
        decoded=tuple(decoded) if is_decoded else None,
    )


def index_files(source: PreparedSource, table: str) -> tuple[Path, ...]:
    """The files of a table of all parts: one, where it is compacted."""
    compacted = compacted_for_selection(source.plan.layout, table, source.plan.folders())
    return source.tables(table) if compacted is None else (compacted,)


def count_selected(prepared: Sequence[PreparedSource], selection: pa.Table) -> dict[str, int]:
    """Dataset -> selected samples to train on; says why the others are not."""
    counts = {}
    for source in prepared:
        rows = selection.filter(pc.equal(selection["dataset"], source.name))
        if rows.num_rows != source.num_kept:
            store, lengths = source.plan.store, "the lengths/ folders of its parts"
            advice = f"move {lengths} away" if store.keeps_parts_here else f"delete the objects in {lengths}"
            raise DataError(
                f"{store.shown(source.plan.layout)}: {source.num_kept:,} kept samples, {rows.num_rows:,} with lengths; "
                f"{advice} and build again"
            )
        reasons = Counter(reason for reason in rows["reason"].to_pylist() if reason is not None)
        num_eval = pc.sum(pc.equal(rows["split"], "eval")).as_py() or 0
        counts[source.name] = source.num_kept - reasons.total() - num_eval
        if num_eval:
            note(f"{source.name}: {num_eval:,} of {source.num_kept:,} are held out for validation")
        if shortened := describe_shortened(rows):
            note(f"{source.name}: {shortened}")
        for reason, number in reasons.most_common():
            note(f"{source.name}: {number:,} of {source.num_kept:,} not selected: {reason} ({meaning_of(reason)})")
    return counts


def count_train(selection: pa.Table) -> dict[str, int]:
    """Dataset -> selected samples to train on."""
    train = selection.filter(pc.and_(selection["selected"], pc.equal(selection["split"], "train")))
    counts = train.group_by("dataset").aggregate([("sample_key", "count")])
    return dict(zip(counts["dataset"].to_pylist(), counts["sample_key_count"].to_pylist(), strict=True))


def count_tokens(selection: pa.Table) -> dict[str, int]:
    """Dataset -> tokens of its selected samples to train on."""
    train = selection.filter(pc.and_(selection["selected"], pc.equal(selection["split"], "train")))
    sums = train.group_by("dataset").aggregate([("total_tokens", "sum")])
    return dict(zip(sums["dataset"].to_pylist(), sums["total_tokens_sum"].to_pylist(), strict=True))
