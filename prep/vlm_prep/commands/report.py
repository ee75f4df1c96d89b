"""vlm-prep report MIX."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, result
from vlm_prep.commands.arguments import add_credentials, count

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    report = commands.add_parser(
        "report",
        help="write the page of a mix: shares, distributions, findings, samples",
        description="Write one HTML page about a mix, report.html in its version's folder; it needs no network.",
        epilog="example: vlm-prep report mixes/qwen3_vl_normal --samples 5000",
    )
    report.add_argument("mix", metavar="MIX", help="a mix (its current version), a version, a CONFIG, or a run")
    report.add_argument("--output", type=Path, metavar="FILE", help="write there instead; must not exist")
    report.add_argument("--samples", type=count, metavar="N", help="samples to look through (default: 2,000)")
    report.add_argument("--thumbnails", type=count, metavar="N", help="media with a small picture (default: 300)")
    report.add_argument("--max-mb", type=count, metavar="N", help="size of samples and thumbnails (default: 14)")
    add_credentials(report)
    report.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_prep.report import PageLimits, write_report
    from vlm_prep.verify.targets import copies_for

    asked = {"num_samples": arguments.samples, "num_thumbnails": arguments.thumbnails}
    limits = PageLimits(**{name: number for name, number in asked.items() if number is not None})
    if arguments.max_mb is not None:
        limits = limits.of_bytes(arguments.max_mb * 1_000_000)
    copies = copies_for(arguments.mix, credentials=arguments.credentials)
    written = write_report(arguments.mix, target=arguments.output, limits=limits, copies=copies)
    result(copies.shown(written))
    return DONE
