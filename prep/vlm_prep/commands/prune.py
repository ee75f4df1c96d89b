"""vlm-prep prune SHARDS --mixes DIR..."""

import argparse
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, fact, result
from vlm_prep.commands.arguments import add_credentials

if TYPE_CHECKING:
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    prune = commands.add_parser(
        "prune",
        help="list converted parts that no mix pins; delete them with --delete",
        description="List parts that no version of any mix under the given folders pins. Nothing else is ever deleted.",
        epilog="example: vlm-prep prune shards --mixes mixes other_team/mixes",
    )
    prune.add_argument("shards", metavar="SHARDS", help="the folder of converted sources, or s3://bucket/prefix")
    prune.add_argument(
        "--mixes", nargs="+", required=True, metavar="DIR", help="every folder whose mixes use these shards"
    )
    prune.add_argument("--delete", action="store_true", help="delete what is listed (default: only list it)")
    add_credentials(prune)
    prune.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_catalogs.mix_place import copies_of, local_path
    from vlm_prep.prune import delete_parts, find_loose_parts
    from vlm_prep.stores import store_at

    copies = copies_of(None, credentials=arguments.credentials)
    store = store_at(local_path(arguments.shards, copies), copies)
    parts = find_loose_parts(store, arguments.mixes, copies=copies)
    if arguments.delete:
        parts = delete_parts(store, parts, arguments.mixes, copies=copies)
    for part in parts:
        result(f"{store.shown(part.folder)}  {part.bytes / 1e6:,.1f} MB")
    done = "deleted" if arguments.delete else "can be deleted with --delete"
    fact(f"prune: {len(parts):,} parts, {sum(part.bytes for part in parts) / 1e6:,.1f} MB {done}")
    return DONE
