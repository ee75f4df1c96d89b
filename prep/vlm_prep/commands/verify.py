"""vlm-prep verify PATH."""

import argparse
from typing import TYPE_CHECKING

from vlm_catalogs.console import DONE, FINDINGS, result
from vlm_prep.commands.arguments import add_credentials, count

if TYPE_CHECKING:
    from vlm_catalogs.config import Config
    from vlm_prep.commands.arguments import Commands


def add(commands: "Commands") -> None:
    """Add the command."""
    verify = commands.add_parser(
        "verify",
        help="read everything that a mix or a shards folder holds and list what is wrong with it",
        description="Check sizes, hashes, offsets, schemas, counts, and index tables against shards. Exit 3: findings.",
        epilog="example: vlm-prep verify mixes/qwen3_vl_normal",
    )
    verify.add_argument("path", metavar="PATH", help="a mix (its current version), a version, shards, or a CONFIG")
    verify.add_argument(
        "--repair", action="store_true", help="make broken parts again from the sources; PATH: a CONFIG"
    )
    verify.add_argument(
        "--sources", action="store_true", help="read the sources again too, every medium hashed; PATH: a CONFIG"
    )
    verify.add_argument("--json", action="store_true", help="findings for machines, on stdout")
    verify.add_argument("--num-workers", type=count, default=0, metavar="N", help="processes (default: every core)")
    add_credentials(verify)
    verify.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    from vlm_catalogs import json_text
    from vlm_prep.verify import verify

    config = _sources_config(arguments)
    verified = verify(arguments.path, num_workers=arguments.num_workers, credentials=arguments.credentials)
    if arguments.repair and config is not None:
        from vlm_prep.verify.repair import repair_mix

        if repair_mix(config, verified.findings, num_workers=arguments.num_workers):
            verified = verify(arguments.path, num_workers=arguments.num_workers, credentials=arguments.credentials)
    findings = verified.findings
    if arguments.sources and config is not None:
        from vlm_prep.verify.sources import check_sources

        findings += tuple(check_sources(config, num_workers=arguments.num_workers))
    if arguments.json:
        counts = {"parts": verified.num_parts, "samples": verified.num_samples, "bytes": verified.num_bytes}
        rows = [finding.as_row() for finding in findings]
        result(json_text.dumps_indented({**counts, "findings": rows}).rstrip())
    else:
        for finding in findings:
            result(finding.line())
    return FINDINGS if findings else DONE


def _sources_config(arguments: argparse.Namespace) -> "Config | None":
    """The TOML that names the sources, where they are read. Raises ConfigError for another kind of PATH."""
    import json
    from pathlib import Path

    from vlm_catalogs.config import load_config
    from vlm_catalogs.errors import ConfigError

    if not (arguments.repair or arguments.sources):
        return None
    if not arguments.path.endswith(".toml"):
        raise ConfigError(
            f"{arguments.path}: --repair and --sources read the sources again; give the TOML that names them as PATH"
        )
    given = arguments.credentials
    return load_config(
        Path(arguments.path), overrides=[f"mix.s3_credentials_path={json.dumps(given)}"] if given else []
    )
