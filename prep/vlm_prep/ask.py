"""The answer to a user's question to the index, as a table, CSV, JSON or Parquet."""

import csv
import io
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs import json_text
from vlm_catalogs.console import note
from vlm_catalogs.errors import ConfigError, StorageError
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.index_files import find_index
from vlm_prep.interruptible import answered
from vlm_prep.safe_sql import lock_to_files, parse_select
from vlm_prep.sql_views import ABOUT, create_views, describe_views
from vlm_prep.staging import writing

SHOWN_ROWS = 200
"""A table for people has no more; the other formats have all."""
UNBOUND_WIDTH = 10_000
"""Of a table that no terminal shows: its lines are as long as they are."""
ORIGIN = "the query"


def ask_index(path: str, sql: str, *, copies: ObjectCopies | None = None) -> pa.Table:
    """The rows that ``sql`` selects from the views of ``path``.

    Raises ConfigError for SQL that is not one SELECT or that DuckDB refuses, DataError for an index that is not whole.
    """
    parse_select(sql, origin=ORIGIN)
    files = find_index(path, copies=copies)
    with tempfile.TemporaryDirectory(prefix="vlm-prep-sql-") as scratch, duckdb.connect() as index:
        create_views(index, files)
        lock_to_files(index, files.folders(), scratch=Path(scratch))
        try:
            return with_distinct_names(answered(index, lambda: index.sql(sql).to_arrow_table()))
        except duckdb.Error as error:
            raise ConfigError(f"{ORIGIN}: {error}\nvlm-prep sql {path} --schema lists what there is") from error


def with_distinct_names(rows: pa.Table) -> pa.Table:
    """The rows, columns of one name as ``a``, ``a_1``, ...: joins have such, and all but one of them would be lost."""
    names: list[str] = []
    for name in rows.column_names:
        number, new = 0, name
        while new in names or (number and new in rows.column_names):
            number += 1
            new = f"{name}_{number}"
        names.append(new)
    return rows.rename_columns(names)


def describe_index(path: str, *, copies: ObjectCopies | None = None) -> str:
    """Every view of ``path`` with its columns, for people."""
    with duckdb.connect() as index:
        create_views(index, find_index(path, copies=copies))
        columns = describe_views(index)
    lines = []
    for view, about in ABOUT.items():
        of_view = [column for column in columns if column.view == view]
        if of_view:
            lines += [f"{view}: {about}", *(f"    {column.name}  {column.type}" for column in of_view)]
    return "\n".join(lines)


def create_database(path: str, target: Path, *, copies: ObjectCopies | None = None) -> None:
    """Write a DuckDB file with the same views, over the index where it lies; whole or not at all.

    Raises ConfigError if the file exists, StorageError where it cannot be written.
    """
    if target.exists():
        raise ConfigError(f"{target}: exists already; name another file or move it away")
    files = find_index(path, copies=copies, compacted=False)  # prune may remove compactions, not pinned parts
    with writing(target), tempfile.TemporaryDirectory(prefix=".vlm-prep-sql-", dir=target.parent) as scratch:
        staged = Path(scratch) / target.name
        try:
            with duckdb.connect(str(staged)) as database:
                create_views(database, files)
        except duckdb.IOException as error:
            raise StorageError(f"{target}: cannot be written: {error}") from error
        staged.rename(target)


def answer_text(rows: pa.Table, answer_format: str) -> str:
    """The rows as ``table``, ``csv`` or ``json``, without a final newline."""
    if answer_format == "json":
        return json_text.dumps([plain_value(row) for row in rows.to_pylist()])
    if answer_format == "csv":
        return _csv(rows)
    return _table(rows)


def write_parquet(rows: pa.Table, target: Path) -> None:
    """Write the rows. Raises ConfigError for a file that exists, StorageError where it cannot be written."""
    if target.exists():
        raise ConfigError(f"{target}: exists already; name another file or move it away")
    with writing(target):
        pq.write_table(rows, target, compression="zstd")


def _csv(rows: pa.Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    writer.writerows([_cell(value, "") for value in row.values()] for row in rows.to_pylist())
    return text.getvalue().rstrip("\n")


def _table(rows: pa.Table) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for field in rows.schema:
        is_number = (
            pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        )
        table.add_column(Text(field.name), justify="right" if is_number else "left", overflow="fold", max_width=80)
    for row in rows.slice(0, SHOWN_ROWS).to_pylist():
        table.add_row(*(Text(_cell(value, "null")) for value in row.values()))
    if rows.num_rows > SHOWN_ROWS:
        note(f"{rows.num_rows:,} rows, {SHOWN_ROWS} shown; --format csv, json or parquet has all")
    text = io.StringIO()
    Console(file=text, width=None if sys.stdout.isatty() else UNBOUND_WIDTH, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).rstrip()


def _cell(value: Any, missing: str) -> str:
    plain = plain_value(value)
    if plain is None:
        return missing
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def plain_value(value: Any) -> Any:
    """As JSON can say it: numbers stay numbers, times and bytes become text."""
    if isinstance(value, dict):
        return {str(key): plain_value(one) for key, one in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [plain_value(one) for one in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, bytes):
        return value.hex()
    return int(value) if type(value).__name__ == "Decimal" and value == int(value) else str(value)
