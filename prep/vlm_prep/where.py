"""Which samples do the user's conditions leave out? Each is one SQL expression, on a connection that reads no file."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs import json_text, tables
from vlm_catalogs.errors import ConfigError
from vlm_prep.interruptible import answered
from vlm_prep.reasons import WHERE
from vlm_prep.sql import read_sql

CLOCKS = {"current_timestamp", "current_time", "localtime", "localtimestamp"}
"""Spelled as columns, and no functions to DuckDB."""
REFUSED = pa.schema([("sample_key", pa.uint64()), ("reason", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of ``[mix.select.where]``."""

    name: str
    sql: str
    origin: str
    """Where it was written, such as ``mix.toml:12``."""
    key: str = "mix.select.where"
    dataset: str | None = None
    """None asks it of all datasets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The index files that a condition is asked of."""

    samples: tuple[Path, ...]
    lengths: tuple[Path, ...]
    media: tuple[Path, ...]


def check_condition(condition: Condition) -> None:
    """Raise ConfigError unless the text is exactly one expression."""
    parsed, alone = _parsed(f"select (\n{condition.sql}\n)"), _parsed(f"select\n{condition.sql}\n")
    if parsed["error"]:
        raise _broken(condition, str(parsed["error_message"]))
    node = parsed["statements"][0]["node"]
    is_one = len(parsed["statements"]) == 1 and node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1
    clauses = ("where_clause", "having", "qualify", "sample")
    is_plain = not node.get("modifiers") and not any(node.get(clause) for clause in clauses)
    if not is_one or not is_plain or node["from_table"]["type"] != "EMPTY":
        raise _broken(condition, "expected one expression, found a statement")
    if alone["error"]:  # in parentheses it is one only because it closes them: a) or (b
        raise _broken(condition, "expected one expression; it is empty, or closes a parenthesis that it has not opened")
    if changing := _changing_functions(node):
        raise _broken(
            condition, f"{', '.join(sorted(changing))}: another value each time, so a mix could not be repeated"
        )


def check_conditions(conditions: Sequence[Condition], *, scores: Mapping[str, pa.Table] | None = None) -> None:
    """Ask the conditions of a mix without samples: a column that is not there is said before anything is converted.

    Raises ConfigError as ``refused_samples`` does.
    """
    if not conditions:
        return
    schemas = {"samples": tables.SAMPLES, "lengths": tables.LENGTHS, "media": tables.MEDIA}
    with tempfile.TemporaryDirectory(prefix="vlm-prep-where-") as folder:
        empty = {name: Path(folder) / f"{name}.parquet" for name in schemas}
        for name, schema in schemas.items():
            pq.write_table(schema.empty_table(), empty[name])
        refused_samples(Tables(**{name: (path,) for name, path in empty.items()}), conditions, scores=scores)


def _parsed(sql: str) -> dict[str, Any]:
    """The syntax tree of statements, or DuckDB's error."""
    with duckdb.connect() as parser:
        [(text,)] = parser.execute("select json_serialize_sql($sql)", {"sql": sql}).fetchall()
    parsed: dict[str, Any] = json_text.loads(text.encode())
    return parsed


def refused_samples(
    index: Tables,
    conditions: Sequence[Condition],
    *,
    scores: Mapping[str, pa.Table] | None = None,
    like: duckdb.DuckDBPyConnection | None = None,
) -> pa.Table:
    """sample_key and reason of the samples that a condition is not true of; the first such condition is given.

    ``scores`` are tables of the user's, by the names that conditions call them: dataset, sample_id, and columns.
    ``like`` is a connection whose limit of memory and whose temporary folder hold here as well.

    Raises ConfigError, with DuckDB's message, for a condition that cannot be asked.
    """
    if not conditions:
        return REFUSED.empty_table()
    files = {name: [str(path) for path in getattr(index, name)] for name in ("samples", "lengths", "media")}
    with tempfile.TemporaryDirectory(prefix="vlm-prep-where-") as scratch, duckdb.connect() as asked:
        asked.execute("set temp_directory = $folder", {"folder": scratch})
        for name in ("memory_limit", "temp_directory") if like is not None else ():
            assert like is not None
            (value,) = like.execute("select current_setting($name)", {"name": name}).fetchall()[0]
            asked.execute(f"set {name} = $value", {"value": value})
        asked.execute(read_sql("where_rows.sql"), files)
        for name, rows in (scores or {}).items():
            _add_scores(asked, name, rows)
        asked.execute("set enable_external_access = false")
        asked.execute("set lock_configuration = true")
        for condition in conditions:
            check_condition(condition)
            _ask(asked, condition, scores=list(scores or {}))
        return asked.sql("select sample_key, reason from refused").to_arrow_table().cast(REFUSED)


def _add_scores(asked: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    """A table beside ``samples``: sample_key and the user's columns."""
    asked.register("scores_to_store", rows)
    question = "select samples.sample_key, theirs.* exclude (dataset, sample_id) from scores_to_store as theirs"
    asked.execute(f"create table {quoted(name)} as {question} join samples using (dataset, sample_id)")
    asked.unregister("scores_to_store")
    (num_samples, num_found) = asked.execute(
        f"select (select count(*) from samples), (select count(*) from {quoted(name)})"
    ).fetchall()[0]
    if num_samples and not num_found:
        raise ConfigError(f"mix.select.tables.{name}: none of its {rows.num_rows:,} rows is of a sample of this mix")


def _ask(asked: duckdb.DuckDBPyConnection, condition: Condition, *, scores: Sequence[str]) -> None:
    """Add the samples that are left and that the condition is not true of to the table ``refused``."""
    asked.execute("create table if not exists refused (sample_key ubigint primary key, reason varchar)")
    joined = " ".join(["samples", *(f"left join {quoted(name)} using (sample_key)" for name in scores)])
    which = "" if condition.dataset is None else "samples.dataset = $dataset and "
    rows = f"select sample_key, $reason from {joined} where {which}((\n{condition.sql}\n) is not true)"
    parameters = {"reason": WHERE + condition.name}
    if condition.dataset is not None:
        parameters["dataset"] = condition.dataset
    try:
        answered(asked, lambda: asked.execute(f"insert or ignore into refused {rows}", parameters))
    except (duckdb.OutOfMemoryException, duckdb.IOException):
        raise
    except duckdb.Error as error:
        raise _broken(condition, str(error)) from error


def quoted(name: str) -> str:
    """A name of SQL, whatever it is made of."""
    return '"' + name.replace('"', '""') + '"'


def _changing_functions(node: object) -> set[str]:
    """The functions of a parsed expression, below any node of it, whose value is another each time."""
    if isinstance(node, list):
        return set().union(*(_changing_functions(each) for each in node))
    if not isinstance(node, dict):
        return set()
    found = _changing_functions(list(node.values()))
    names = [node.get("function_name"), *(node.get("column_names") or [])]  # current_date is parsed as a column
    return found | {name for name in names if name and name.lower() in volatile_functions()}


@cache
def volatile_functions() -> frozenset[str]:
    """What DuckDB itself does not call consistent: random(), now(), current_date and the like; lower case."""
    with duckdb.connect() as parser:
        names = {name for (name,) in parser.execute(read_sql("volatile_functions.sql")).fetchall()}
    return frozenset(names | CLOCKS)


def _broken(condition: Condition, why: str) -> ConfigError:
    return ConfigError(f"{condition.origin}: {condition.key}.{condition.name}: {condition.sql}\n{why}")
