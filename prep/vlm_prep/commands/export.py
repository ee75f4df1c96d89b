"""vlm-prep export MIX DIR --format jsonl|webdataset."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, result
from vlm_prep.commands.arguments import add_credentials

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    export = commands.add_parser(
        "export",
        help="write the selected samples of a mix as JSONL and media files, or as webdataset tars",
        description="Write every selected train sample once, in a form that other tools read, and build-mix as well.",
        epilog="example: vlm-prep export mixes/qwen3_vl_normal exported --format jsonl",
    )
    export.add_argument("mix", metavar="MIX", help="a mix (its current version), a version, or a CONFIG")
    export.add_argument("folder", type=Path, metavar="DIR", help="where to; must not exist, or be empty")
    export.add_argument("--format", choices=("jsonl", "webdataset"), required=True, help="what to write")
    add_credentials(export)
    export.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_prep.export import export_mix
    from vlm_prep.verify.targets import copies_for

    copies = copies_for(arguments.mix, credentials=arguments.credentials)
    export_mix(arguments.mix, arguments.folder, file_format=arguments.format, copies=copies)
    result(str(arguments.folder))
    return DONE
