"""The user's own tables about samples: lists to include or exclude, scores, hashes of held-out data."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from vlm_catalogs.errors import ConfigError, UserError
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.object_store import is_s3
from vlm_prep.index_files import find_index

READERS = {
    ".parquet": "read_parquet",
    ".csv": "read_csv",
    ".jsonl": "read_json",
    ".json": "read_json",
}
"""Suffix -> DuckDB's reader."""
KEYS = ("dataset", "sample_id")
HASH_COLUMNS = ("media_hash", "text_hash", "xxh3_128", "hash")


def read_lists(paths: Sequence[str], *, origin: str) -> pa.Table:
    """dataset and sample_id of every row of the files. Raises ConfigError for a file that is no such list."""
    empty = pa.table({key: pa.array([], pa.string()) for key in KEYS})
    tables = [read_user_table(Path(path), origin=origin).select(list(KEYS)) for path in paths]
    return pa.concat_tables([empty, *tables])


def read_user_table(path: Path, *, origin: str) -> pa.Table:
    """A table with a row for each of some samples. Raises ConfigError where it has not dataset and sample_id."""
    rows = _read_file(path, origin=origin)
    missing = [key for key in KEYS if key not in rows.column_names]
    if missing:
        raise ConfigError(
            f"{origin}: {path}: no column {' and no column '.join(missing)}; expected dataset and sample_id, found "
            + ", ".join(rows.column_names)
        )
    for key in KEYS:
        place = rows.column_names.index(key)
        rows = rows.set_column(place, key, rows[key].cast(pa.string()))
    return rows


def read_score_tables(paths: Mapping[str, str], *, origin: str) -> dict[str, pa.Table]:
    """Name -> table of ``[mix.select.tables]``. Raises ConfigError for one that has several rows for a sample."""
    tables = {}
    for name, path in paths.items():
        rows = read_user_table(Path(path), origin=f"{origin}.{name}")
        counts = rows.group_by(list(KEYS)).aggregate([([], "count_all")])
        several = counts.filter(pa.compute.greater(counts["count_all"], 1))
        if several.num_rows:
            first = several.slice(0, 1).to_pylist()[0]
            raise ConfigError(
                f"{origin}.{name}: {path}: {first['count_all']} rows for {first['dataset']}/{first['sample_id']}, "
                "expected one row for a sample"
            )
        tables[name] = rows
    return tables


def read_held_out(paths: Sequence[str], *, origin: str, copies: ObjectCopies | None = None) -> pa.Table:
    """The hashes (hash) of media and texts of the held-out sets: mixes, shards, or files with columns of hashes.

    ``copies`` are those of the TOML that names the paths: its credentials reach what lies in S3.
    Raises ConfigError for a path that is none of them.
    """
    hashes = [hashes for path in paths for hashes in _held_out_hashes(path, origin, copies)]
    chunks = [chunk for each in hashes for chunk in each.chunks]
    return pa.table({"hash": pa.chunked_array(chunks, pa.string())})


def _held_out_hashes(path: str, origin: str, copies: ObjectCopies | None) -> list[pa.ChunkedArray]:
    if Path(path).suffix in READERS:
        rows = _read_file(Path(path), origin=origin)
        columns = [name for name in HASH_COLUMNS if name in rows.column_names]
        if not columns:
            raise ConfigError(f"{origin}: {path}: none of the columns {', '.join(HASH_COLUMNS)} is in it")
        return [rows[name].cast(pa.string()) for name in columns]
    try:
        files = find_index(path, copies=copies if is_s3(path) else None)  # another TOML has its own
    except UserError as error:
        raise ConfigError(f"{origin}: {error}") from error
    return [
        pa.parquet.read_table(path, columns=[column])[column]
        for table, column in (("media", "xxh3_128"), ("samples", "text_hash"))
        for path in files.table(table)
    ]


def _read_file(path: Path, *, origin: str) -> pa.Table:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise ConfigError(f"{origin}: {path}: expected a file of {', '.join(READERS)}")
    if not path.is_file():
        raise ConfigError(f"{origin}: {path}: no such file")
    with duckdb.connect() as index:
        try:
            return index.sql(f"select * from {reader}($path)", params={"path": str(path)}).to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(f"{origin}: {path}: {error}") from error
