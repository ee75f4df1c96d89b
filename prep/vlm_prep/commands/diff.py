"""vlm-prep diff MIX_A MIX_B."""

import argparse
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, result
from vlm_prep.commands.arguments import add_credentials

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    diff = commands.add_parser(
        "diff",
        help="what differs between two mixes: settings, shares, which samples and why, lengths",
        description="Compare two mixes by their manifests and index tables. Reads no shard and writes nothing.",
        epilog="example: vlm-prep diff mixes/old mixes/new",
    )
    mix = "a mix (its current version), a version, a CONFIG, or a run (its mix)"
    diff.add_argument("mix_a", metavar="MIX_A", help=mix)
    diff.add_argument("mix_b", metavar="MIX_B", help="the same; what it has and MIX_A has not, has entered")
    diff.add_argument("--json", action="store_true", help="for machines")
    add_credentials(diff)
    diff.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_catalogs import json_text
    from vlm_prep.diff import diff_mixes
    from vlm_prep.diff_text import diff_text

    found = diff_mixes(arguments.mix_a, arguments.mix_b, credentials=arguments.credentials)
    result(json_text.dumps_indented(found.as_json()).rstrip() if arguments.json else diff_text(found))
    return DONE
