"""The command ``vlm-prep``: what users type. What its commands do and print stands in ``commands/``."""

import argparse
import sys
from collections.abc import Sequence

from vlm_catalogs.console import run_main
from vlm_prep.commands import audit, build_mix, diff, export, peek, prune, report, show, sql, verify

COMMANDS = (build_mix, audit, report, verify, prune, export, peek, sql, show, diff)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line: 0 done, 1 a bug, 2 wrong input, 3 findings."""
    parsed = _parser().parse_args(arguments)
    return run_main(lambda: int(parsed.run(parsed)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlm-prep", description="Turn sources into shards and an exact, audited mix.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
