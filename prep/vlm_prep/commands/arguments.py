"""How arguments of commands are read, and those that several commands take."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def count(text: str) -> int:
    """A number from 0 on. Raises argparse.ArgumentTypeError for another text."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


def add_overrides(parser: argparse.ArgumentParser, *, where: str = "") -> None:
    """Add ``--set``. ``where`` says when it may be given, if not always."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="section.key=value",
        help=f"a setting in the place of the TOML's{where}; may be given more than once",
    )


def add_credentials(parser: argparse.ArgumentParser) -> None:
    """Add ``--credentials``."""
    parser.add_argument(
        "--credentials",
        metavar="FILE",
        help="JSON file of S3 credentials, as [custom] s3_credentials_path (default: those of the CONFIG or the run, "
        "else boto3's own chain)",
    )
