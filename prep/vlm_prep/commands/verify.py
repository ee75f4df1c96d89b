"""vlm-prep verify PATH."""

import argparse
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, FINDINGS, result
from vlm_prep.commands.arguments import count

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    verify = commands.add_parser(
        "verify",
        help="read everything that a mix or a shards folder holds and list what is wrong with it",
        description="Check sizes, hashes, offsets, schemas, counts, and index tables against shards. Exit 3: findings.",
        epilog="example: vlm-prep verify mixes/qwen3_vl_normal",
    )
    verify.add_argument("path", metavar="PATH", help="a mix (its current version), a version, shards, or a CONFIG")
    verify.add_argument("--json", action="store_true", help="findings for machines, on stdout")
    verify.add_argument("--num-workers", type=count, default=0, metavar="N", help="processes (default: every core)")
    verify.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_catalogs import json_text
    from vlm_prep.verify import verify

    verified = verify(arguments.path, num_workers=arguments.num_workers)
    if arguments.json:
        counts = {"parts": verified.num_parts, "samples": verified.num_samples, "bytes": verified.num_bytes}
        rows = [finding.as_row() for finding in verified.findings]
        result(json_text.dumps_indented({**counts, "findings": rows}).rstrip())
    else:
        for finding in verified.findings:
            result(finding.line())
    return FINDINGS if verified.findings else DONE
