"""The command ``vlm-prep``: what users type, and what they see at the end."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, FINDINGS, fact, note, result, run_main

if TYPE_CHECKING:
    from vlm_catalogs.config import Config
    from vlm_catalogs.manifest import Manifest
    from vlm_prep.build import BuildPlan

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLE = "example: vlm-prep build-mix configs/tiny/qwen3_vl_normal.toml --dry-run"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line: 0 done, 1 a bug, 2 wrong input, 3 findings."""
    parsed = _parser().parse_args(arguments)
    return run_main(lambda: int(parsed.run(parsed)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlm-prep", description="Turn sources into shards and an exact, audited mix.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_build_mix(commands)
    _add_verify(commands)
    _add_prune(commands)
    _add_export(commands)
    _add_peek(commands)
    return parser


def _add_build_mix(commands: "Commands") -> None:
    build = commands.add_parser(
        "build-mix",
        help="convert the sources that a TOML names, select samples, write the mix",
        description="Convert what is not converted yet, measure, select, write the mix. Safe to interrupt and repeat.",
        epilog=EXAMPLE,
    )
    build.add_argument("config", type=Path, metavar="CONFIG", help="the TOML that vlm-train takes as well")
    build.add_argument("--dry-run", action="store_true", help="print sources, sizes, parts and shares; write nothing")
    build.add_argument("--num-workers", type=int, metavar="N", help="processes that convert (default: every core)")
    build.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="section.key=value",
        help="a setting in the place of the TOML's; may be given more than once",
    )
    build.set_defaults(run=_build_mix)


def _add_verify(commands: "Commands") -> None:
    verify = commands.add_parser(
        "verify",
        help="read everything that a mix or a shards folder holds and list what is wrong with it",
        description="Check sizes, hashes, offsets, schemas, counts, and index tables against shards. Exit 3: findings.",
        epilog="example: vlm-prep verify mixes/qwen3_vl_normal",
    )
    verify.add_argument("path", metavar="PATH", help="a mix (its current version), a version, shards, or a CONFIG")
    verify.add_argument("--json", action="store_true", help="findings for machines, on stdout")
    verify.add_argument("--num-workers", type=_count, default=0, metavar="N", help="processes (default: every core)")
    verify.set_defaults(run=_verify)


def _add_prune(commands: "Commands") -> None:
    prune = commands.add_parser(
        "prune",
        help="list converted parts that no mix pins; delete them with --delete",
        description="List parts that no version of any mix under the given folders pins. Nothing else is ever deleted.",
        epilog="example: vlm-prep prune shards --mixes mixes other_team/mixes",
    )
    prune.add_argument("shards", type=Path, metavar="SHARDS", help="the folder of converted sources")
    prune.add_argument(
        "--mixes", type=Path, nargs="+", required=True, metavar="DIR", help="every folder whose mixes use these shards"
    )
    prune.add_argument("--delete", action="store_true", help="delete what is listed (default: only list it)")
    prune.set_defaults(run=_prune)


def _add_export(commands: "Commands") -> None:
    export = commands.add_parser(
        "export",
        help="write the selected samples of a mix as JSONL and media files, or as webdataset tars",
        description="Write every selected train sample once, in a form that other tools read, and build-mix as well.",
        epilog="example: vlm-prep export mixes/qwen3_vl_normal exported --format jsonl",
    )
    export.add_argument("mix", metavar="MIX", help="a mix (its current version), a version, or a CONFIG")
    export.add_argument("folder", type=Path, metavar="DIR", help="where to; must not exist, or be empty")
    export.add_argument("--format", choices=("jsonl", "webdataset"), required=True, help="what to write")
    export.set_defaults(run=_export)


def _add_peek(commands: "Commands") -> None:
    peek = commands.add_parser(
        "peek",
        help="show which form a source has, and its first samples",
        description="Look at a file, a folder or an i4 wdinfo.json as build-mix would read it. Writes nothing.",
        epilog="example: vlm-prep peek tests/demo_data/i4/demo_clipart/wdinfo.json -n 2",
    )
    peek.add_argument("source", metavar="SOURCE", help="a file or a folder of samples, or an i4 wdinfo.json")
    peek.add_argument("-n", type=_count, default=5, metavar="N", dest="num_samples", help="samples (default: 5)")
    peek.add_argument("--format", default="auto", help="as in [[mix.source]], or i4 (default: by looking)")
    peek.add_argument("--media-root", metavar="DIR", help="where relative media paths start (default: beside the file)")
    peek.set_defaults(run=_peek)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


def _build_mix(arguments: argparse.Namespace) -> int:
    config = _load(arguments)
    # Heavy imports come only now: --help and a wrong TOML answer at once.
    from vlm_catalogs.manifest import read_manifest
    from vlm_prep.build import build_mix, plan_build

    if arguments.dry_run:
        plan = plan_build(config)
        for text in plan.notes:
            note(text)
        result(_plan_table(plan))
        return 0
    version = build_mix(config)
    result(_mix_table(read_manifest(version)))
    result(f"mix: {version}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
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


def _prune(arguments: argparse.Namespace) -> int:
    from vlm_prep.prune import delete_parts, find_loose_parts

    parts = find_loose_parts(arguments.shards, arguments.mixes)
    if arguments.delete:
        delete_parts(arguments.shards, parts)
    for part in parts:
        result(f"{part.folder}  {part.bytes / 1e6:,.1f} MB")
    done = "deleted" if arguments.delete else "can be deleted with --delete"
    fact(f"prune: {len(parts):,} parts, {sum(part.bytes for part in parts) / 1e6:,.1f} MB {done}")
    return DONE


def _export(arguments: argparse.Namespace) -> int:
    from vlm_prep.export import export_mix

    export_mix(arguments.mix, arguments.folder, file_format=arguments.format)
    result(str(arguments.folder))
    return DONE


def _peek(arguments: argparse.Namespace) -> int:
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


def _load(arguments: argparse.Namespace) -> "Config":
    from vlm_catalogs.config import describe_mode, load_config

    overrides = list(arguments.overrides)
    if arguments.num_workers is not None:
        overrides.append(f"mix.num_workers={arguments.num_workers}")
    config = load_config(arguments.config, overrides=overrides)
    for text in config.notes:
        note(text)
    fact(describe_mode(config))
    return config


def _plan_table(plan: "BuildPlan") -> str:
    total = sum(source.source.weight for source in plan.sources)
    rows = [
        [
            source.source.name,
            source.file_format,
            f"{source.num_bytes / 1e6:,.1f}",
            str(len(source.parts)),
            str(len(source.parts) - len(source.missing)),
            f"{source.source.weight:g}",
            f"{source.source.weight / total:.4%}",
        ]
        for source in plan.sources
    ]
    return _table(["dataset", "format", "MB", "parts", "cached", "weight", "share"], rows)


def _mix_table(manifest: "Manifest") -> str:
    rows = [
        [
            dataset.name,
            f"{dataset.num_converted:,}",
            f"{dataset.num_rejected:,}",
            f"{dataset.num_selected:,}",
            f"{dataset.num_draws:,}",
            f"{dataset.share:.4%}",
            f"{dataset.num_draws / manifest.epoch_samples:.4%}",
        ]
        for dataset in manifest.datasets
    ]
    return _table(["dataset", "converted", "rejected", "selected", "draws", "asked", "realised"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as what they hold; names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in [head, *rows])


def _line(row: list[str], widths: list[int]) -> str:
    name, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([name.strip().ljust(widths[0]), *numbers])


if __name__ == "__main__":
    sys.exit(main())
