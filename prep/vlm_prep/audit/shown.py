"""An audit for people: a table in a terminal, plain lines elsewhere."""

import io
import sys
import textwrap
from typing import Any

from vlm_catalogs import json_text
from vlm_prep.audit.findings import CLEAN, FOUND, NOT_RUN, Audit, AuditFinding

SHOWN_EXAMPLES = 3
PLAIN_WIDTH = 120
CELL_CHARS = 60
STYLES = {"E": "bold red", "W": "yellow", "I": "cyan"}


def findings_text(audit: Audit) -> str:
    """What was found, with examples and advice, then what was not run; clean queries are only counted."""
    shown = [one for one in audit.findings if one.status == FOUND]
    blocks = [_table(shown) if sys.stdout.isatty() else "\n".join(_plain(one) for one in shown)] if shown else []
    if missing := [one for one in audit.findings if one.status == NOT_RUN and not one.is_broken]:
        by_reason: dict[str, list[str]] = {}
        for one in missing:
            by_reason.setdefault(one.reason or "", []).append(one.name)
        lines = [
            textwrap.fill(f"{reason} -> {', '.join(names)}", PLAIN_WIDTH, subsequent_indent="    ", initial_indent="  ")
            for reason, names in by_reason.items()
        ]
        blocks.append("\n".join(["not run, so nothing is known:", *lines]))
    return "\n".join(blocks) if blocks else "nothing was found"


def summary(audit: Audit) -> str:
    """One line of counts."""
    counts = audit.counts
    clean, missing = (sum(one.status == status for one in audit.findings) for status in (CLEAN, NOT_RUN))
    found = ", ".join(f"{number} {severity}" for severity, number in counts.items())
    failed = f"; fails for {', '.join(audit.failed)}" if audit.failed else ""
    return f"audit: {len(audit.findings)} queries: found {found}; {clean} clean, {missing} not run{failed}"


def broken_text(audit: Audit) -> list[str]:
    """What is wrong with the queries that could not be asked."""
    return [f"{one.name} was not run: {one.reason}" for one in audit.broken]


def _plain(finding: AuditFinding) -> str:
    head = f"{finding.severity}  {finding.name}: {finding.title}: {_number(finding)}"
    return "\n".join([head, *(f"     {line}" for line in _examples(finding)), f"     -> {finding.advice}"])


def _number(finding: AuditFinding) -> str:
    return f"{finding.num_rows:,} row{'s' if finding.num_rows != 1 else ''}"


def _examples(finding: AuditFinding) -> list[str]:
    lines = [
        ", ".join(f"{name}: {_cell(value)}" for name, value in zip(finding.columns, row, strict=True))
        for row in finding.rows[:SHOWN_EXAMPLES]
    ]
    more = finding.num_rows - len(lines)
    return [*lines, f"... and {more:,} more"] if more > 0 else lines


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json_text.dumps(value)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 3] + "..."


def _table(findings: list[AuditFinding]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for name in ("", "query", "rows", "what was found"):
        table.add_column(name, justify="right" if name == "rows" else "left", no_wrap=name == "query")
    for one in findings:
        about = Text("\n").join([Text(one.title, style="bold"), *map(Text, _examples(one)), Text(one.advice, "dim")])
        table.add_row(Text(one.severity, STYLES[one.severity]), Text(one.name), f"{one.num_rows:,}", about)
    text = io.StringIO()
    Console(file=text, force_terminal=True, highlight=False).print(table)
    return text.getvalue().rstrip("\n")
