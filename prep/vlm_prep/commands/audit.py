"""vlm-prep audit PATH."""

import argparse
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, FINDINGS, WRONG_INPUT, fact, note, result
from vlm_prep.commands.arguments import add_credentials, add_overrides

if TYPE_CHECKING:
    from vlm_catalogs.config import Config
    from vlm_catalogs.object_copies import ObjectCopies
    from vlm_prep.audit.findings import Audit
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    audit = commands.add_parser(
        "audit",
        help="ask the index of a mix or of shards what is wrong with the data",
        description="Run every query of the audit and list what it finds; a mix gets audit.json. Exit 3: a severity "
        "has reached its limit ([mix.audit] fail_at; as set: one E).",
        epilog="example: vlm-prep audit configs/tiny/qwen3_vl_normal.toml",
    )
    audit.add_argument(
        "path", metavar="PATH", help="a mix (its current version), a version, shards, a CONFIG, or a run"
    )
    audit.add_argument("--json", action="store_true", help="the findings for machines, as audit.json has them")
    audit.add_argument(
        "--queries", nargs="+", default=[], metavar="DIR", help="folders of further queries, as [mix.audit] queries"
    )
    add_overrides(audit, where=", where PATH is a CONFIG")
    add_credentials(audit)
    audit.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from dataclasses import replace

    from vlm_catalogs.config.audit_section import AuditSection

    config = _config(arguments)
    section = AuditSection() if config is None else config.mix.audit
    section = replace(section, queries=(*section.queries, *arguments.queries))
    from vlm_catalogs.mix_place import copies_of, find_current, mix_root
    from vlm_prep.verify.targets import copies_for

    path = arguments.path
    if config is None:
        copies = copies_for(path, credentials=arguments.credentials)
    else:
        copies = copies_of(config, credentials=arguments.credentials)
        path = copies.shown(find_current(mix_root(config, copies), copies))
    from vlm_prep.audit import run_audit, write_audit
    from vlm_prep.audit.shown import broken_text, findings_text, summary

    audit = run_audit(path, section=section, copies=copies)
    result(audit.as_json().rstrip() if arguments.json else findings_text(audit))
    fact(summary(audit))
    said_before = audit.said_before()
    if (written := write_audit(audit, copies=copies)) is not None:
        fact(f"audit: {written}")
    _renew_report(audit, said_before, copies)
    for text in broken_text(audit):
        note(text)
    if audit.broken:
        return WRONG_INPUT
    return FINDINGS if audit.failed else DONE


def _renew_report(audit: "Audit", said_before: str | None, copies: "ObjectCopies") -> None:
    """A page that is there says what the audit before this one had found; it is written anew where that has changed."""
    if audit.mix is None or audit.as_json() == said_before:
        return
    from vlm_prep.report import has_report, write_report

    if has_report(audit.mix, copies=copies):
        fact(f"report: {copies.shown(write_report(copies.shown(audit.mix), copies=copies))}")


def _config(arguments: argparse.Namespace) -> "Config | None":
    """The TOML that PATH is, if it is one. Raises ConfigError."""
    from pathlib import Path

    from vlm_catalogs.config import load_config
    from vlm_catalogs.errors import ConfigError

    if arguments.path.endswith(".toml"):
        return load_config(Path(arguments.path), overrides=arguments.overrides)
    if arguments.overrides:
        raise ConfigError(f"{arguments.path}: --set changes a TOML; give one as PATH")
    return None
