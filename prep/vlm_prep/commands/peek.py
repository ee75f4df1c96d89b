"""vlm-prep peek SOURCE."""

import argparse
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, result
from vlm_prep.commands.arguments import count

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    peek = commands.add_parser(
        "peek",
        help="show which form a source has, and its first samples",
        description="Look at a file, a folder or an i4 wdinfo.json as build-mix would read it. Writes nothing.",
        epilog="example: vlm-prep peek tests/demo_data/i4/demo_clipart/wdinfo.json -n 2",
    )
    peek.add_argument("source", metavar="SOURCE", help="a file or a folder of samples, or an i4 wdinfo.json")
    peek.add_argument("-n", type=count, default=5, metavar="N", dest="num_samples", help="samples (default: 5)")
    peek.add_argument("--format", default="auto", help="as in [[mix.source]], or i4 (default: by looking)")
    peek.add_argument("--media-root", metavar="DIR", help="where relative media paths start (default: beside the file)")
    peek.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_prep.peek import peek_source
    from vlm_prep.peek_text import sample_text

    peek = peek_source(
        arguments.source,
        num_samples=arguments.num_samples,
        file_format=arguments.format,
        media_root=arguments.media_root,
    )
    result(f"form: {peek.form} ({peek.about})")
    for sample in peek.samples:
        result(sample_text(sample))
    return DONE
