"""The index of a path as DuckDB views: what ``vlm-prep sql`` and the audits ask, and what each view holds."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.tables import DECODED, EPOCH, LENGTHS, MEDIA, SAMPLE_LOSS, SAMPLES, SELECTION, TEXTS
from vlm_prep.index_files import IndexFiles
from vlm_prep.sql import read_sql

ABOUT = {
    "samples": "a row per sample of the sources, kept or rejected, with its origin, reason and place in the shards",
    "media": "a row per image or video of each kept sample, with the facts of its header",
    "decoded_media": "a row per medium: does it decode, perceptual hash, light, contrast, sharpness (decode = 'full')",
    "texts": "a row per kept sample: messages and alternatives as JSON",
    "turns": "a row per turn of every conversation: role, text, images and videos in it",
    "lengths": "a row per kept sample, alternative and encoding: tokens by kind, supervised tokens, patches",
    "facts": "a row per kept sample: the sample, its longest alternative's lengths, its media together",
    "parts": "a row per converted part: dataset, kept and rejected samples, bytes of its shards",
    "shards": "a row per shard file: samples, bytes, hash",
    "datasets": "a row per dataset of the mix: weight, share, draws, counts",
    "selection": "a row per kept sample: is it in the mix, in which split, and if not, why",
    "epoch_rows": "a row per drawn sample of the epochs that have been planned: step, row, position",
    "steps": "a row per step that was trained, of its latest attempt: the metrics",
    "sample_losses": "a row per sample that was trained on, of the latest attempt at the step: sum of its loss",
}
"""View -> what it holds. Those after ``shards`` need a mix, those after ``selection`` a run, and ``decoded_media`` is
there when every part has been decoded."""


LOSS_FILES = "sample_loss/rank-*/part-*.parquet"
"""In the folder of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a view."""

    view: str
    name: str
    type: str


def create_views(index: duckdb.DuckDBPyConnection, files: IndexFiles) -> list[str]:
    """The names of the views that ``files`` has, made on ``index``. Raises DataError for files that cannot be read."""
    tables = {"samples": SAMPLES, "media": MEDIA, "texts": TEXTS}
    try:
        for name, schema in tables.items():
            _view_of_files(index, name, files.table(name), schema)
        _view_of_lengths(index, files.lengths())
        if (decoded := files.decoded()) is not None:
            _view_of_files(index, "decoded_media", decoded, DECODED)
        create_table(index, "parts", _rows_of_parts(files))
        create_table(index, "shards", _rows_of_shards(files))
        index.execute(read_sql("conversations.sql"))
        index.execute(read_sql("turns.sql"))
        index.execute(read_sql("facts.sql"))
        if files.mix is not None:
            _views_of_mix(index, files)
        if files.run is not None:
            _views_of_run(index, files.run)
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise DataError(f"{error}\nvlm-prep verify says what is wrong with the files") from error
    return [name for (name,) in index.execute(read_sql("views.sql")).fetchall()]


def describe_views(index: duckdb.DuckDBPyConnection) -> list[Column]:
    """Every column of every view, in their order."""
    rows = index.execute(read_sql("columns.sql"), {"views": list(ABOUT)}).fetchall()
    return [Column(view=view, name=name, type=kind) for view, name, kind in rows]


def _views_of_mix(index: duckdb.DuckDBPyConnection, files: IndexFiles) -> None:
    assert files.mix is not None and files.manifest is not None
    _view_of_files(index, "selection", [files.mix / "selection.parquet"], SELECTION)
    rows = [{**asdict(one), "parts": len(one.parts)} for one in files.manifest.datasets]
    create_table(index, "datasets", pa.Table.from_pylist(rows))


def _views_of_run(index: duckdb.DuckDBPyConnection, run: Path) -> None:
    _view_of_files(index, "epoch_rows", sorted(run.glob("epochs/epoch-*/part-*.parquet")), EPOCH)
    _view_of_files(index, "every_loss", sorted(run.glob(LOSS_FILES)), SAMPLE_LOSS)
    index.execute(read_sql("sample_losses.sql"))
    create_table(index, "steps", _latest_steps(run / "metrics.jsonl"))


def _latest_steps(path: Path) -> pa.Table:
    """The lines of the latest attempt at each step; a torn last line is one that was never written whole."""
    latest: dict[int, dict[str, Any]] = {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    for number, text in enumerate(lines, start=1):
        try:
            line = json_text.loads(text)
            if line["attempt"] >= latest.get(line["step"], line)["attempt"]:
                latest[line["step"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a line of metrics: {error!r}") from error
    keys = dict.fromkeys(key for line in latest.values() for key in line)
    if not keys:
        return pa.table({"step": pa.array([], pa.int64())})
    return pa.table({key: [latest[step].get(key) for step in sorted(latest)] for key in keys})


def _view_of_files(index: duckdb.DuckDBPyConnection, name: str, paths: Sequence[Path], schema: pa.Schema) -> None:
    if paths:
        index.execute(f"create view {name} as select * from read_parquet({_list(paths)})")
    else:
        create_table(index, name, schema.empty_table())


def _view_of_lengths(index: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
    """As the files, with the fingerprint of the encoding, which their names say."""
    if not paths:
        create_table(index, "lengths", LENGTHS.append(pa.field("encoding", pa.string())).empty_table())
        return
    columns = "* exclude (filename), parse_filename(filename, true) as encoding"
    index.execute(f"create view lengths as select {columns} from read_parquet({_list(paths)}, filename = true)")


def create_table(index: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """Store rows under a name."""
    index.register("rows_to_store", rows)
    index.execute(f"create table {name} as select * from rows_to_store")
    index.unregister("rows_to_store")


def _rows_of_parts(files: IndexFiles) -> pa.Table:
    records = [part.record for part in files.parts]
    return pa.table(
        {
            "dataset": pa.array([one.dataset for one in records], pa.string()),
            "part": pa.array([one.name for one in records], pa.string()),
            "num_kept": pa.array([one.num_kept for one in records], pa.int64()),
            "num_rejected": pa.array([one.num_rejected for one in records], pa.int64()),
            "num_out_of_order": pa.array([one.num_out_of_order for one in records], pa.int64()),
            "num_shards": pa.array([len(one.shards) for one in records], pa.int64()),
            "bytes": pa.array([sum(file.bytes for file in one.shards) for one in records], pa.int64()),
            "folder": pa.array([files.copies.shown(part.folder) for part in files.parts], pa.string()),
        }
    )


def _rows_of_shards(files: IndexFiles) -> pa.Table:
    rows = [
        (part.record.dataset, part.record.name, number, file.name, samples, file.bytes, file.xxh3_128)
        for part in files.parts
        for number, (file, samples) in enumerate(zip(part.record.shards, part.record.shard_samples, strict=True))
    ]
    names = ("dataset", "part", "shard", "file", "num_samples", "bytes", "xxh3_128")
    types = (pa.string(), pa.string(), pa.int32(), pa.string(), pa.int64(), pa.int64(), pa.string())
    columns = zip(*rows, strict=True) if rows else [[] for _ in names]
    return pa.table({name: pa.array(column, kind) for name, kind, column in zip(names, types, columns, strict=True)})


def _list(paths: Iterable[Path]) -> str:
    """The paths as a list of SQL; a view cannot have parameters."""
    return "[" + ", ".join("'" + str(path.absolute()).replace("'", "''") + "'" for path in paths) + "]"
