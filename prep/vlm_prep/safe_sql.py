"""May this SQL of a user run? One SELECT, on a connection that reads the index and writes nothing (semantics A11)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError


def parse_select(sql: str, *, origin: str, parser: duckdb.DuckDBPyConnection | None = None) -> dict[str, Any]:
    """The syntax tree of the one SELECT that ``sql`` is. Raises ConfigError, with DuckDB's words, for anything else.

    ``parser`` is any connection, for who parses much: opening one takes longer than parsing.
    """
    if parser is None:
        with duckdb.connect() as own:
            return parse_select(sql, origin=origin, parser=own)
    [(text,)] = parser.execute("select json_serialize_sql($sql)", {"sql": sql}).fetchall()
    parsed: dict[str, Any] = json_text.loads(text.encode())
    if parsed["error"]:
        if "\n" in sql and "position" in parsed:
            before = sql.encode()[: int(parsed["position"])]
            line = before.count(b"\n") + 1
            origin += f":{line}"
        raise ConfigError(f"{origin}: {parsed['error_message']}\nexpected one SELECT (or WITH ... SELECT) statement")
    if len(parsed["statements"]) != 1:
        raise ConfigError(f"{origin}: {len(parsed['statements'])} statements, expected one SELECT")
    statement: dict[str, Any] = parsed["statements"][0]["node"]
    return statement


def lock_to_files(index: duckdb.DuckDBPyConnection, folders: Iterable[Path], *, scratch: Path | None = None) -> None:
    """From now on ``index`` reads below ``folders`` only, and no setting of it can be changed.

    What does not fit into memory goes to ``scratch``, or where it went before. That nothing is written elsewhere is
    parse_select's to see to: DuckDB lets COPY write where it may read.
    """
    if scratch is not None:
        index.execute("set temp_directory = $folder", {"folder": str(scratch)})
    allowed = [str(folder.absolute()) + "/" for folder in folders]
    index.execute("set allowed_directories = $folders", {"folders": allowed})
    index.execute("set enable_external_access = false")
    index.execute("set lock_configuration = true")
