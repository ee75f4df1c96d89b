"""One query of an audit as its file tells it: a header of comments, then one SELECT of offending rows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from vlm_catalogs.errors import ConfigError
from vlm_prep.safe_sql import parse_select

SEVERITIES = ("E", "W", "I")
HEADER_LINE = re.compile(r"-- (?P<key>\w+): +(?P<value>.+)")
CONTINUED = re.compile(r"-- {3,}(?P<value>\S.*)")
THRESHOLD = re.compile(r"(?P<name>[a-z]\w*) = (?P<value>-?\d+(?:\.\d+)?)(?:, .+)?")
HEADER_KEYS = ("title", "severity", "threshold", "advice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query, ready to be asked."""

    name: str
    """The stem of its file."""
    origin: str
    """The file, for messages."""
    sql: str
    """The whole text, so that DuckDB's line numbers are those of the file."""
    title: str
    severity: str
    """E (the mix should not be used so), W (look at it), I (good to know)."""
    advice: str
    tables: frozenset[str]
    """The views that it reads."""
    is_ordered: bool
    """Does it say itself in which order its rows stand?"""
    thresholds: Mapping[str, float] = field(default_factory=dict)


def read_query(name: str, sql: str, *, origin: str, parser: duckdb.DuckDBPyConnection) -> Query:
    """The query of a file's text. Raises ConfigError, with file and line, for a broken header or SELECT."""
    header = _read_header(sql, origin)
    tree = parse_select(sql, origin=origin, parser=parser)
    _check_thresholds(header["thresholds"], _parameters(tree), origin)
    return Query(
        name=name,
        origin=origin,
        sql=sql,
        title=header["title"],
        severity=header["severity"],
        advice=header["advice"],
        thresholds=header["thresholds"],
        tables=frozenset(_tables(tree)),
        is_ordered=any(one["type"] == "ORDER_MODIFIER" for one in tree.get("modifiers", [])),
    )


def query_files(folder: Path) -> list[Path]:
    """The queries of a folder, by name. Raises ConfigError where there is none."""
    found = sorted(path for path in folder.glob("*.sql") if path.is_file()) if folder.is_dir() else []
    if not found:
        raise ConfigError(f"{folder}: {'no .sql file in it' if folder.is_dir() else 'no such folder'}")
    return found


def _read_header(sql: str, origin: str) -> dict[str, Any]:
    """title, severity, advice and thresholds."""
    header: dict[str, Any] = {"thresholds": {}}
    for line, key, value in _header_lines(sql):
        if key not in HEADER_KEYS:
            raise ConfigError(f"{origin}:{line}: unknown key {key!r} in the header, expected {', '.join(HEADER_KEYS)}")
        if key == "threshold":
            match = THRESHOLD.fullmatch(value)
            if match is None:
                raise ConfigError(f"{origin}:{line}: expected `threshold: name = number, what it means`, got {value!r}")
            number = float(match["value"])
            header["thresholds"][match["name"]] = int(number) if number.is_integer() else number
        elif key in header:
            raise ConfigError(f"{origin}:{line}: {key} stands in the header before")
        else:
            header[key] = value
    missing = [key for key in HEADER_KEYS if key != "threshold" and key not in header]
    if missing:
        raise ConfigError(f"{origin}:1: the header lacks {', '.join(missing)} (a line such as `-- title: ...`)")
    if header["severity"] not in SEVERITIES:
        raise ConfigError(f"{origin}:1: severity {header['severity']!r}, expected one of {', '.join(SEVERITIES)}")
    return header


def _header_lines(sql: str) -> Iterator[tuple[int, str, str]]:
    """Line number, key and value; a line that is indented goes on with the value before."""
    found: list[tuple[int, str, str]] = []
    for number, line in enumerate(sql.splitlines(), start=1):
        if not line.startswith("--"):
            break
        if match := HEADER_LINE.fullmatch(line.rstrip()):
            found.append((number, match["key"], match["value"]))
        elif found and (more := CONTINUED.fullmatch(line.rstrip())):
            began, key, value = found.pop()
            found.append((began, key, f"{value} {more['value']}"))
    yield from found


def _check_thresholds(thresholds: Mapping[str, float], parameters: set[str], origin: str) -> None:
    """Raise ConfigError where the query does not use just those that its header names."""
    if unknown := sorted(parameters - thresholds.keys()):
        raise ConfigError(f"{origin}: ${unknown[0]}: the header has no line `-- threshold: {unknown[0]} = ...`")
    if unused := sorted(thresholds.keys() - parameters):
        raise ConfigError(f"{origin}: threshold {unused[0]} is not used; write ${unused[0]} in the query")


def _parameters(tree: object) -> set[str]:
    """The names of parameters below a node of a parsed statement."""
    if isinstance(tree, list):
        return set().union(*map(_parameters, tree))
    if not isinstance(tree, dict):
        return set()
    found = _parameters(list(tree.values()))
    return found | {tree["identifier"]} if tree.get("type") == "VALUE_PARAMETER" else found


def _tables(tree: object) -> set[str]:
    """The names of tables and views below a node of a parsed statement, without those that a WITH in it makes."""
    if isinstance(tree, list):
        return set().union(*map(_tables, tree))
    if not isinstance(tree, dict):
        return set()
    found = _tables(list(tree.values()))
    if tree.get("type") == "BASE_TABLE":
        found.add(tree["table_name"].lower())
    return found - {entry["key"].lower() for entry in tree.get("cte_map", {}).get("map", [])}
