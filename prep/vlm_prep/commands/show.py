"""vlm-prep show PATH ID."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, fact, result
from vlm_prep.commands.arguments import add_credentials

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    show = commands.add_parser(
        "show",
        help="show one sample: conversation, media, lengths, whether it is used and why, where it came from",
        description="Show all that the index knows of one sample, kept or rejected. Writes nothing without --media.",
        epilog="example: vlm-prep show mixes/qwen3_vl_normal demo_photos.jsonl#000000003",
    )
    show.add_argument("path", metavar="PATH", help="a mix (its current version), a version, shards, a CONFIG, or a run")
    show.add_argument("sample", metavar="ID", help="a sample_id, or dataset/sample_id")
    show.add_argument("--json", action="store_true", help="for machines")
    show.add_argument("--media", type=Path, metavar="DIR", help="write the sample's media files there as well")
    add_credentials(show)
    show.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_catalogs import json_text
    from vlm_prep.show import show_sample, write_media
    from vlm_prep.show_text import shown_text
    from vlm_prep.verify.targets import copies_for

    copies = copies_for(arguments.path, credentials=arguments.credentials)
    shown = show_sample(arguments.path, arguments.sample, copies=copies)
    written = write_media(shown, arguments.media) if arguments.media is not None else []
    result(json_text.dumps_indented(shown.as_json()).rstrip() if arguments.json else shown_text(shown))
    for path in written:
        fact(f"written: {path}")
    return DONE
