"""What is wrong with the data of a mix, or of converted sources? Every query of the audit, asked of the index."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files as resource_files
from pathlib import Path

import duckdb

from vlm_catalogs import json_text
from vlm_catalogs.config.audit_section import AuditSection
from vlm_catalogs.console import Progress
from vlm_catalogs.errors import ConfigError, StorageError
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.manifest import AUDIT_FILE
from vlm_catalogs.mix_place import copies_of
from vlm_catalogs.object_copies import ObjectCopies
from vlm_prep.ask import plain_value
from vlm_prep.audit.findings import (
    CLEAN,
    FAIL_AT,
    FOUND,
    Audit,
    AuditFinding,
    in_order,
    not_run,
    unreadable,
)
from vlm_prep.audit.query_file import Query, query_files, read_query
from vlm_prep.audit.views import create_audit_views, why_missing
from vlm_prep.index_files import IndexFiles, find_index
from vlm_prep.interruptible import answered
from vlm_prep.safe_sql import lock_to_files
from vlm_prep.sql_views import create_views
from vlm_prep.stores import store_at

SHOWN_ROWS = 20
NO_ROOM = (duckdb.OutOfMemoryException, duckdb.IOException)


def run_audit(path: str, *, section: AuditSection | None = None, copies: ObjectCopies | None = None) -> Audit:
    """Every query, asked of the index of a mix, a version, shards, a CONFIG (its mix) or a run.

    A query that is broken takes no other with it. Raises ConfigError for a PATH, a folder of queries or a threshold
    that is none, DataError for an index that is not whole, StorageError when neither memory nor disk has room.
    """
    section = section or AuditSection()
    files = find_index(path, copies=copies)
    queries, broken = read_queries([Path(folder) for folder in section.queries])
    queries = with_thresholds(queries, section.thresholds)
    findings = in_order([*broken, *_ask_all(files, queries, section)])
    mix = files.mix if files.run is None else None
    asked = None if any(one.is_broken for one in findings) else _asked(queries, section)
    return Audit(findings=findings, fail_at={**FAIL_AT, **section.fail_at}, mix=mix, asked=asked)


def is_audited(mix: Path, section: AuditSection) -> bool:
    """Does the ``audit.json`` of a mix version say what an audit would say now? Raises ConfigError."""
    queries, broken = read_queries([Path(folder) for folder in section.queries])
    asked = None if broken else _asked(with_thresholds(queries, section.thresholds), section)
    try:
        return asked is not None and json_text.loads((mix / AUDIT_FILE).read_bytes())["asked"] == asked
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _asked(queries: Sequence[Query], section: AuditSection) -> str | None:
    """Identifies what is asked of a mix, which does not change; None with benchmarks, which may."""
    if section.benchmarks:
        return None
    return joined_hash(part for one in queries for part in (one.name, one.sql, json_text.dumps(dict(one.thresholds))))


def write_audit(audit: Audit, *, copies: ObjectCopies | None = None) -> str | None:
    """Put ``audit.json`` beside the manifest of the mix, if it is of a mix; where. Raises StorageError."""
    if audit.mix is None:
        return None
    target = audit.mix / AUDIT_FILE
    store = store_at(audit.mix.parent, copies or copies_of(None))
    with store.staging() as staging:
        store.publish_text(audit.as_json(), target, staging=staging)
    return store.shown(target)


def read_queries(folders: Sequence[Path] = ()) -> tuple[list[Query], list[AuditFinding]]:
    """The package's queries and those of ``folders``, and a finding for each file that is none.

    Raises ConfigError for a folder without queries.
    """
    own = [one for one in resource_files("vlm_prep.audits").iterdir() if one.name.endswith(".sql")]
    found = [(one.name, one.name, one.read_bytes) for one in sorted(own, key=lambda one: one.name)]
    found += [(path.name, str(path), path.read_bytes) for folder in folders for path in query_files(folder)]
    queries: dict[str, Query] = {}
    broken = []
    with duckdb.connect() as parser:
        for file, origin, read in found:
            name = file.removesuffix(".sql")
            try:
                if name in queries:
                    raise ConfigError(f"{origin}: {queries[name].origin} has this name already; rename the file")
                queries[name] = read_query(name, read().decode("utf-8-sig"), origin=origin, parser=parser)
            except ConfigError as error:
                broken.append(unreadable(name, str(error)))
            except UnicodeDecodeError as error:
                broken.append(unreadable(name, f"{origin}: not UTF-8: {error}"))
            except OSError as error:
                broken.append(unreadable(name, f"{origin}: cannot be read: {error.strerror}"))
    return list(queries.values()), broken


def with_thresholds(queries: Sequence[Query], changes: Mapping[str, Mapping[str, float]]) -> list[Query]:
    """The queries with the thresholds of the TOML. Raises ConfigError for one that no query has."""
    by_name = {query.name: query for query in queries}
    for name, values in changes.items():
        known = by_name[name].thresholds if name in by_name else None
        for threshold in values if known is not None else ("",):
            if known is None or threshold not in known:
                has = "there is no such query" if known is None else f"it has {', '.join(known) or 'none'}"
                raise ConfigError(f"mix.audit.thresholds.{name}.{threshold}".rstrip(".") + f": {has}")
        by_name[name] = replace(by_name[name], thresholds={**by_name[name].thresholds, **values})
    return list(by_name.values())


def _ask_all(files: IndexFiles, queries: Sequence[Query], section: AuditSection) -> list[AuditFinding]:
    """Raises DataError and StorageError."""
    wanted = frozenset[str]().union(*(query.tables for query in queries))
    with tempfile.TemporaryDirectory(prefix="vlm-prep-audit-") as folder:
        scratch = Path(folder)
        try:
            with (
                duckdb.connect(
                    str(scratch / "audit.duckdb"),
                    config={"memory_limit": f"{section.memory_limit}B", "temp_directory": str(scratch / "spilled")},
                ) as index,
                Progress("audit", total=len(queries), unit="queries") as progress,
            ):
                views = create_views(index, files)
                views += create_audit_views(index, files, wanted, benchmarks=section.benchmarks)
                lock_to_files(index, files.folders())
                missing = {table: why_missing(table, files, views) for table in wanted}
                found = []
                for query in queries:
                    found.append(_ask(index, query, missing))
                    progress.advance()
                return found
        except NO_ROOM as error:
            problem = str(error).partition("\n")[0]
            raise StorageError(
                f"{scratch}: the index cannot be audited, for lack of memory or disk: {problem}; "
                "[mix.audit] memory_limit and TMPDIR say where there is more"
            ) from error


def _ask(index: duckdb.DuckDBPyConnection, query: Query, missing: Mapping[str, str | None]) -> AuditFinding:
    """What one query finds, or why it was not run."""
    if reasons := [reason for table in sorted(query.tables) if (reason := missing[table]) is not None]:
        return not_run(query, "; ".join(reasons))
    try:
        # On the line of the query's own first line, so that DuckDB's line numbers are those of the file.
        question = f"create or replace temp table found as {query.sql}"
        answered(index, lambda: index.execute(question, dict(query.thresholds)))
    except NO_ROOM:
        raise
    except duckdb.Error as error:
        return not_run(query, _broken(query, str(error)), is_broken=True)
    [(num_rows,)] = index.execute("select count(*) from found").fetchall()
    order = "" if query.is_ordered else "order by all"
    shown = index.sql(f"select * from found {order} limit {SHOWN_ROWS}").to_arrow_table()
    return AuditFinding(
        name=query.name,
        title=query.title,
        severity=query.severity,
        status=FOUND if num_rows else CLEAN,
        num_rows=num_rows,
        columns=tuple(shown.column_names),
        rows=tuple(
            zip(*([plain_value(value) for value in column.to_pylist()] for column in shown.columns), strict=True)
        ),
        advice=query.advice,
    )


def _broken(query: Query, message: str) -> str:
    """DuckDB's words with file and line."""
    line = message.partition("\nLINE ")[2].partition(":")[0]
    return f"{query.origin}:{line}: {message}" if line.isdecimal() else f"{query.origin}: {message}"
