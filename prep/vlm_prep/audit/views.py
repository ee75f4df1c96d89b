"""What the audit's queries read beside the views of ``vlm-prep sql``: made once, when a query names it."""

from collections.abc import Collection, Sequence
from dataclasses import fields

import duckdb
import pyarrow as pa

from vlm_catalogs.manifest import Manifest
from vlm_prep.index_files import IndexFiles
from vlm_prep.sql import read_sql
from vlm_prep.user_tables import read_held_out

ABOUT = {
    "mix": "the mix itself, one row: name, model_max_length, weight_unit, epoch_samples, length_policy, ...",
    "audited": "a row per sample that is looked at: those of the mix, and those that only the renderer has left out",
    "audited_media": "the media of these samples; hash is a number",
    "turn_facts": "a row per turn of these samples, with what one pass over its text found",
    "conversation_facts": "a row per conversation of these samples: roles in order, hashes of questions and answers",
    "eval_samples": "the samples that are held out for validation",
    "benchmarks": "a row per hash of the benchmarks that [mix.audit] names",
}
"""View -> what it holds."""

NEEDS = {
    "audited_media": ("audited",),
    "turn_facts": ("audited",),
    "conversation_facts": ("audited",),
}
OF_A_MIX = ("selection", "datasets", "mix")
OF_A_RUN = ("epoch_rows", "steps", "sample_losses")


def create_audit_views(
    index: duckdb.DuckDBPyConnection, files: IndexFiles, wanted: Collection[str], *, benchmarks: Sequence[str] = ()
) -> list[str]:
    """The names of the views of ``ABOUT`` that are wanted and can be had, made on ``index``."""
    needed = {*wanted, *(other for name in wanted for other in NEEDS.get(name, ()))}
    made = []
    for name in ABOUT:
        if name in needed and _create(index, files, name, benchmarks):
            made.append(name)
    return made


def why_missing(table: str, files: IndexFiles, views: Collection[str]) -> str | None:
    """Why a query that reads ``table`` cannot be asked; None when it can (or when DuckDB is to say why not)."""
    if table in OF_A_MIX and files.mix is None:
        return f"{table}: only a mix has it"
    if table in OF_A_RUN and files.run is None:
        return f"{table}: only a run has it; give its output_dir as PATH"
    if table == "epoch_rows" and files.run is not None and not any(files.run.glob("epochs/epoch-*/part-*.parquet")):
        return "epoch_rows: no epoch of this run has been planned yet"
    if table in ("lengths", "facts") and not all(part.lengths for part in files.parts):
        return f"{table}: not every part is measured; build a mix"
    reasons = {
        "decoded_media": "decoded_media: not every medium has been decoded",
        "eval_samples": "eval_samples: no sample is held out for validation ([mix.select.eval])",
        "benchmarks": "benchmarks: [mix.audit] benchmarks names none",
    }
    return None if table in views else reasons.get(table)


def _create(index: duckdb.DuckDBPyConnection, files: IndexFiles, name: str, benchmarks: Sequence[str]) -> bool:
    """Was there something to make it of? Raises ConfigError for a benchmark that is none."""
    if name == "mix":
        if files.manifest is not None:
            _store(index, name, pa.Table.from_pylist([_mix_row(files.manifest)]))
        return files.manifest is not None
    if name == "benchmarks":
        if benchmarks:
            _store(index, name, read_held_out(benchmarks, origin="mix.audit.benchmarks"))
        return bool(benchmarks)
    if name == "eval_samples":
        if (
            files.mix is None
            or index.execute("select 1 from selection where split = 'eval' limit 1").fetchone() is None
        ):
            return False
        index.execute("create view eval_samples as select * from selection where selected and split = 'eval'")
        return True
    index.execute(read_sql("audited_shards.sql" if name == "audited" and files.mix is None else f"{name}.sql"))
    return True


def _mix_row(manifest: Manifest) -> dict[str, object]:
    """The plain fields of a manifest, and the size of a patch in pixels where its encoding says one."""
    plain = (str, int, float)
    return {one.name: getattr(manifest, one.name) for one in fields(Manifest) if one.type in plain} | {
        "family": manifest.encoding.family
    }


def _store(index: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    index.register("rows_to_store", rows)
    index.execute(f"create table {name} as select * from rows_to_store")
    index.unregister("rows_to_store")
