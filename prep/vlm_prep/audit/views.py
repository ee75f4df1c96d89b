"""What the audit's queries read beside the views of ``vlm-prep sql``: made once, when a query names it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import duckdb
import pyarrow as pa

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import PART_FILE
from vlm_catalogs.manifest import Manifest
from vlm_catalogs.mix_place import layout_folder
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.index_files import IndexFiles
from vlm_prep.sql import read_sql
from vlm_prep.sql_views import LOSS_FILES, create_table
from vlm_prep.user_tables import read_held_out
from vlm_prep.verify.targets import PARTS, find_layouts, layouts_in_store

ABOUT = {
    "mix": "the mix itself, one row: name, model_max_length, weight_unit, epoch_samples, length_policy, ...",
    "audited": "a row per sample that is looked at: those of the mix, and those that only the renderer has left out",
    "audited_media": "the media of these samples; hash is a number",
    "media_spreads": "a row per medium and measure (aspect, pixels, seconds): how far it is from others of its dataset",
    "turn_facts": "a row per turn of these samples, with what one pass over its text found",
    "conversation_facts": "a row per conversation of these samples: roles in order",
    "places": "a row per box or point in what these samples say of places: as it is written, its numbers",
    "pixels_per_patch": "one row, where the encoding says how large a patch of an image is: pixels",
    "stated_counts": "a row per tar of an i4 source, and one for all (entry is null): samples that wdinfo.json states",
    "converted_datasets": "a row per dataset under the shards folders that the mix reads: num_parts",
    "eval_samples": "the samples that are held out for validation",
    "benchmarks": "a row per hash of the benchmarks that [mix.audit] names",
    "planned_shares": "a row per dataset: its share of the draws as asked, and as the planned epochs have it",
    "trained_shares": "the same of what was trained on",
}
"""View -> what it holds."""

NEEDS = {
    "audited_media": ("audited",),
    "media_spreads": ("audited", "audited_media"),
    "turn_facts": ("audited",),
    "conversation_facts": ("audited", "turn_facts"),
    "places": ("audited", "turn_facts"),
}
OF_A_MIX = ("selection", "datasets", "mix")
OF_A_RUN = ("epoch_rows", "steps", "sample_losses")
SHARES = {"planned_shares": "epoch_rows", "trained_shares": "sample_losses"}
"""View of shares -> what it counts."""


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
    table = SHARES.get(table, table)
    if table in OF_A_MIX and files.mix is None:
        return f"{table}: only a mix has it"
    if table in OF_A_RUN and files.run is None:
        return f"{table}: only a run has it; give its output_dir as PATH"
    if table == "epoch_rows" and files.run is not None and not any(files.run.glob("epochs/epoch-*/part-*.parquet")):
        return "epoch_rows: no epoch of this run has been planned yet"
    if table == "sample_losses" and files.run is not None and not any(files.run.glob(LOSS_FILES)):
        return "sample_losses: this run has none ([stream] log_sample_loss), or none yet"
    if table in ("lengths", "facts") and not all(part.lengths for part in files.parts):
        return f"{table}: not every part is measured; build a mix"
    if table in ("stated_counts", "converted_datasets") and files.mix is None:
        return f"{table}: only a mix says which version of a source it is of"
    reasons = {
        "pixels_per_patch": "pixels_per_patch: the encoding does not say how large a patch is",
        "stated_counts": "stated_counts: no source states how many samples it has",
        "decoded_media": 'decoded_media: the media were not decoded ([mix] decode = "full" when the mix is built)',
        "eval_samples": "eval_samples: no sample is held out for validation ([mix.select.eval])",
        "benchmarks": "benchmarks: [mix.audit] benchmarks names none",
    }
    return None if table in views else reasons.get(table)


def _create(index: duckdb.DuckDBPyConnection, files: IndexFiles, name: str, benchmarks: Sequence[str]) -> bool:
    """Was there something to make it of? Raises ConfigError for a benchmark that is none."""
    if name in TABLES:
        rows = TABLES[name](files) if files.mix is not None else None
        if rows is not None:
            create_table(index, name, rows)
        return rows is not None
    if name == "benchmarks":
        if benchmarks:
            create_table(index, name, read_held_out(benchmarks, origin="mix.audit.benchmarks", copies=files.copies))
        return bool(benchmarks)
    if name == "eval_samples":
        if files.mix is None or not index.execute("select 1 from selection where split = 'eval' limit 1").fetchall():
            return False
        index.execute("create view eval_samples as select * from selection where selected and split = 'eval'")
        return True
    if name in SHARES:
        if files.run is not None:
            index.execute(read_sql("realised_shares.sql"))
        return files.run is not None
    index.execute(read_sql("audited_shards.sql" if name == "audited" and files.mix is None else f"{name}.sql"))
    return True


def _mix_row(files: IndexFiles) -> pa.Table:
    """The plain fields of the manifest."""
    assert files.manifest is not None
    plain = [one.name for one in fields(Manifest) if one.type in (str, int)]
    row = {name: getattr(files.manifest, name) for name in plain}
    return pa.Table.from_pylist([{**row, "family": files.manifest.encoding.family}])


def _pixels_per_patch(files: IndexFiles) -> pa.Table | None:
    """Where all encodings of the mix agree."""
    assert files.manifest is not None
    rules = [settings.get("media", {}).get("image") or {} for settings in files.manifest.encoding.settings.values()]
    sizes = {one.get("patch_size") for one in rules}
    if len(sizes) != 1 or not isinstance(size := sizes.pop(), int):
        return None
    return pa.table({"pixels": pa.array([size * size], pa.int64())})


def _stated_counts(files: IndexFiles) -> pa.Table | None:
    """What wdinfo.json said when the mix was built. Raises DataError for a damaged file, StorageError."""
    assert files.manifest is not None and files.mix is not None
    rows = []
    for dataset in files.manifest.datasets:
        path = layout_folder(files.mix, dataset, files.copies) / "sources" / f"{dataset.source_fingerprint}.json"
        if files.copies.has_place_for(path):
            files.copies.bring([path], below=path.parent)
        try:
            stated = json_text.loads(path.read_bytes()).get("stated_counts", {})
            rows += [(dataset.name, entry or None, int(number)) for entry, number in stated.items()]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            place = files.copies.shown(path)
            raise DataError(f"{place}: not a version of a source: {error!r}; vlm-prep verify says more") from error
    if not rows:
        return None
    names, entries, counts = zip(*rows, strict=True)
    return pa.table(
        {
            "dataset": pa.array(names, pa.string()),
            "entry": pa.array(entries, pa.string()),
            "num_stated": pa.array(counts, pa.int64()),
        }
    )


def _converted_datasets(files: IndexFiles) -> pa.Table:
    """The datasets beside those of the mix, wherever its shards lie. Raises StorageError."""
    assert files.manifest is not None and files.mix is not None
    roots = {layout_folder(files.mix, dataset, files.copies).parents[1] for dataset in files.manifest.datasets}
    counts = Counter[str]()
    for root in sorted(roots):
        for layout, num_parts in _converted(root, files.copies):
            counts[layout.parent.name] += num_parts
    return pa.table(
        {"dataset": pa.array(list(counts), pa.string()), "num_parts": pa.array(counts.values(), pa.int64())}
    )


def _converted(shards: Path, copies: ObjectCopies) -> Iterator[tuple[Path, int]]:
    """The layouts under a shards folder and their whole parts; of one in S3 what the store has, not what is copied."""
    if copies.has_place_for(shards):
        for layout in layouts_in_store(shards, copies):
            yield layout, sum(path.name == PART_FILE for path in copies.list(layout / PARTS))
    else:
        for layout in find_layouts(shards):
            yield layout, sum(1 for _ in layout.glob(f"{PARTS}/*/{PART_FILE}"))


TABLES: dict[str, Callable[[IndexFiles], pa.Table | None]] = {
    "mix": _mix_row,
    "pixels_per_patch": _pixels_per_patch,
    "stated_counts": _stated_counts,
    "converted_datasets": _converted_datasets,
}
"""View of a mix -> its rows, or None where there is nothing to make it of."""
