"""vlm-prep build-mix CONFIG."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, WRONG_INPUT, fact, note, result
from vlm_catalogs.text_table import text_table
from vlm_prep.commands.arguments import add_overrides

if TYPE_CHECKING:
    from vlm_catalogs.config import Config
    from vlm_catalogs.manifest import Manifest
    from vlm_prep.commands.arguments import Commands
    from vlm_prep.dry_run import DryRun
    from vlm_prep.estimate import Estimate


def add(commands: "Commands") -> None:
    """Add the command."""
    build = commands.add_parser(
        "build-mix",
        help="convert the sources that a TOML names, select samples, write the mix",
        description="Convert what is not converted yet, measure, select, write the mix. Safe to interrupt and repeat.",
        epilog="example: vlm-prep build-mix configs/tiny/qwen3_vl_normal.toml --dry-run",
    )
    build.add_argument("config", type=Path, metavar="CONFIG", help="the TOML that vlm-train takes as well")
    build.add_argument("--dry-run", action="store_true", help="print sources, sizes, parts and shares; write nothing")
    build.add_argument("--refresh", action="store_true", help="ask the sources, though only the selection has changed")
    build.add_argument("--num-workers", type=int, metavar="N", help="processes that convert (default: every core)")
    build.add_argument(
        "--engine", choices=("local", "ray"), help="processes of this machine, or the running Ray cluster"
    )
    build.add_argument("--scratch", metavar="DIR", help="folder for what is needed only meanwhile (default: in shards)")
    build.add_argument("--max-memory", metavar="SIZE", help="such as 8GB; bounds DuckDB and the number of processes")
    add_overrides(build)
    build.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    config = _load(arguments)
    # Heavy imports come only now: --help and a wrong TOML answer at once.
    from vlm_catalogs.manifest import read_manifest
    from vlm_catalogs.mix_place import copies_of
    from vlm_prep.after_build import audit_and_report
    from vlm_prep.build import build_mix

    if arguments.dry_run:
        return _dry_run(config)
    version = build_mix(config, refresh=arguments.refresh)
    result(_mix_table(read_manifest(version)))
    copies = copies_of(config)
    result(f"mix: {copies.shown(version)}")
    audit_and_report(version, config.mix.audit, copies=copies)
    return 0


def _dry_run(config: "Config") -> int:
    from vlm_prep.dry_run import look

    found = look(config)
    for text in found.notes:
        note(text)
    result(_plan_table(found))
    result(_totals(found))
    for text in found.problems:
        fact(f"problem: {text}")
    return WRONG_INPUT if found.problems else DONE


def _load(arguments: argparse.Namespace) -> "Config":
    from vlm_catalogs.config import describe_mode, load_config

    overrides = list(arguments.overrides)
    for key in ("num_workers", "engine", "scratch", "max_memory"):
        if (value := getattr(arguments, key)) is not None:
            overrides.append(f"mix.{key}={value if isinstance(value, int) else json.dumps(value)}")
    config = load_config(arguments.config, overrides=overrides)
    for text in config.notes:
        note(text)
    fact(describe_mode(config))
    return config


def _totals(found: "DryRun") -> str:
    num_parts = sum(len(source.missing) for source in found.plan.sources)
    probed = sum(one.num_probed for one in found.estimates.values())
    unread = [name for name, one in found.estimates.items() if one.seconds is None]
    unread += [one.source.name for one in found.plan.to_copy]
    basis = f"{probed:,} samples were read for this" if probed else "no sample was read for this"
    time = f"about {found.seconds:,.0f} s in {found.num_workers} processes" if found.seconds >= 1 else "under 1 s"
    return (
        f"to convert: {num_parts:,} parts, about {found.bytes / 1e6:,.1f} MB to write, "
        f"{found.free_bytes / 1e6:,.0f} MB free, {time} ({basis}{'; without ' + ', '.join(unread) if unread else ''})"
    )


def _seconds(one: "Estimate | None") -> str:
    return "?" if one is None or one.seconds is None else f"{one.seconds:,.1f}"


def _plan_table(found: "DryRun") -> str:
    plan = found.plan
    total = sum(source.source.weight for source in plan.sources) + sum(one.source.weight for one in plan.to_copy)
    rows = [
        [
            source.source.name,
            source.file_format,
            f"{source.num_bytes / 1e6:,.1f}",
            str(len(source.parts)),
            str(len(source.parts) - len(source.missing)),
            f"{source.source.weight:g}",
            f"{source.source.weight / total:.4%}",
            f"{one.bytes / 1e6:,.1f}" if (one := found.estimates.get(source.source.name)) else "?",
            _seconds(found.estimates.get(source.source.name)),
        ]
        for source in plan.sources
    ]
    rows += [
        [
            one.source.name,
            f"{one.num_objects:,} objects to copy first",
            f"{one.bytes / 1e6:,.1f}",
            "?",
            "?",
            f"{one.source.weight:g}",
            f"{one.source.weight / total:.4%}",
            f"{2 * one.bytes / 1e6:,.1f}",
            "?",
        ]
        for one in plan.to_copy
    ]
    return text_table(["dataset", "format", "MB", "parts", "cached", "weight", "share", "MB to write", "CPU s"], rows)


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
    return text_table(["dataset", "converted", "rejected", "selected", "draws", "asked", "realised"], rows)
