"""Which samples do the user's conditions leave out? Each is one SQL expression, on a connection that reads no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError
from vlm_prep.reasons import WHERE
from vlm_prep.sql import read_sql

REFUSED = pa.schema([("sample_key", pa.uint64()), ("reason", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of ``[mix.select.where]``."""

    name: str
    sql: str
    origin: str
    """Where it was written, such as ``mix.toml:12``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The index files that a condition is asked of."""

    samples: tuple[Path, ...]
    lengths: tuple[Path, ...]
    media: tuple[Path, ...]


def check_condition(condition: Condition) -> None:
    """Raise ConfigError unless the text is exactly one expression."""
    with duckdb.connect() as parser:
        row = parser.execute("select json_serialize_sql($sql)", {"sql": f"select (\n{condition.sql}\n)"}).fetchone()
    assert row is not None
    parsed: dict[str, Any] = json_text.loads(row[0].encode())
    if parsed["error"]:
        raise _broken(condition, str(parsed["error_message"]))
    node = parsed["statements"][0]["node"]
    is_one = len(parsed["statements"]) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    clauses = ("where_clause", "having", "qualify", "sample")
    is_plain = not node.get("modifiers") and not any(node.get(clause) for clause in clauses)
    if not is_one or not is_plain or node["from_table"]["type"] != "EMPTY":
        raise _broken(condition, "expected one expression, found a statement")


def refused_samples(tables: Tables, conditions: Sequence[Condition]) -> pa.Table:
    """sample_key and reason of the samples that a condition is not true of; the first such condition is given.

    Raises ConfigError, with DuckDB's message, for a condition that cannot be asked.
    """
    if not conditions:
        return REFUSED.empty_table()
    files = {name: [str(path) for path in getattr(tables, name)] for name in ("samples", "lengths", "media")}
    with duckdb.connect() as asked:
        asked.execute(read_sql("where_rows.sql"), files)
        asked.execute("set enable_external_access = false")
        asked.execute("set lock_configuration = true")
        for condition in conditions:
            check_condition(condition)
            _ask(asked, condition)
        return asked.sql("select sample_key, reason from refused").to_arrow_table().cast(REFUSED)


def _ask(asked: duckdb.DuckDBPyConnection, condition: Condition) -> None:
    """Add the samples that are left and that the condition is not true of to the table ``refused``."""
    asked.execute("create table if not exists refused (sample_key ubigint primary key, reason varchar)")
    rows = f"select sample_key, $reason from samples where (\n{condition.sql}\n) is not true"
    try:
        asked.execute(f"insert or ignore into refused {rows}", {"reason": WHERE + condition.name})
    except duckdb.Error as error:
        raise _broken(condition, str(error)) from error


def _broken(condition: Condition, why: str) -> ConfigError:
    return ConfigError(f"{condition.origin}: mix.select.where.{condition.name}: {condition.sql}\n{why}")
