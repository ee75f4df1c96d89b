"""What the queries of an audit had to say, and how it is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.manifest import AUDIT_FILE
from vlm_prep.audit.query_file import SEVERITIES, Query

FORMAT = "vlm-mix audit"
VERSION = 1
CLEAN, FOUND, NOT_RUN = "clean", "found", "not_run"
FAIL_AT = {"E": 1}
"""What fails where the TOML says nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """What one query had to say."""

    name: str
    title: str
    severity: str
    """E, W or I."""
    status: str
    """``clean``, ``found`` or ``not_run``."""
    reason: str | None = None
    """Why it was not run."""
    num_rows: int = 0
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    """The first ones, in the order of the query; plain values of JSON."""
    advice: str = ""
    is_broken: bool = False
    """It was not run because of what stands in its file."""

    def as_row(self) -> dict[str, Any]:
        """The finding as ``audit.json`` has it."""
        names = ("name", "title", "severity", "status", "reason", "num_rows", "columns", "rows", "advice")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What all queries had to say: those that found something first, by severity."""

    findings: tuple[AuditFinding, ...]
    fail_at: Mapping[str, int] = field(default_factory=lambda: dict(FAIL_AT))
    mix: Path | None = None
    """The version of a mix that ``audit.json`` belongs to; None for shards and for a run."""
    asked: str | None = None
    """Identifies the queries and thresholds; None where the same ones may find something else another time."""

    @property
    def broken(self) -> tuple[AuditFinding, ...]:
        """The queries that could not be asked because of what stands in their files."""
        return tuple(one for one in self.findings if one.is_broken)

    @property
    def counts(self) -> dict[str, int]:
        """Severity -> queries that found something."""
        found = [one.severity for one in self.findings if one.status == FOUND]
        return {severity: found.count(severity) for severity in SEVERITIES}

    @property
    def failed(self) -> tuple[str, ...]:
        """The severities that have reached their limit."""
        return tuple(one for one, number in self.counts.items() if 0 < self.fail_at.get(one, 0) <= number)

    def said_before(self) -> str | None:
        """The text of the ``audit.json`` that is there now, if one is."""
        path = None if self.mix is None else self.mix / AUDIT_FILE
        return path.read_text(encoding="utf-8") if path is not None and path.is_file() else None

    def as_json(self) -> str:
        """The text of ``audit.json``: nothing in it depends on when or where the audit ran."""
        rows = [one.as_row() for one in self.findings]
        return json_text.dumps_indented({"format": FORMAT, "version": VERSION, "asked": self.asked, "findings": rows})


def not_run(query: Query, reason: str, *, is_broken: bool = False) -> AuditFinding:
    """The finding of a query that could not be asked."""
    return AuditFinding(
        name=query.name,
        title=query.title,
        severity=query.severity,
        status=NOT_RUN,
        reason=reason,
        advice=query.advice,
        is_broken=is_broken,
    )


def unreadable(name: str, reason: str) -> AuditFinding:
    """The finding of a file that is no query; what its severity was to be is not known, so E."""
    return AuditFinding(name=name, title="not a query", severity="E", status=NOT_RUN, reason=reason, is_broken=True)


def in_order(findings: list[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Broken ones and those that found something first, then by severity and name."""
    return tuple(
        sorted(
            findings,
            key=lambda one: (not one.is_broken, one.status != FOUND, SEVERITIES.index(one.severity), one.name),
        )
    )
