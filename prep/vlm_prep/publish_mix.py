"""The stage that writes a mix version; current.json is swapped last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.manifest import Manifest, manifest_text, read_manifest
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_prep.build_log import BuildLog
from vlm_prep.mix import PreparedSource, make_manifest
from vlm_prep.row_groups import write_table
from vlm_prep.select import Selection
from vlm_prep.select_stage import count_selected, count_tokens
from vlm_prep.staging import publish_folder, publish_text, staging_folder, writing


def publish_mix(
    config: Config,
    prepared: Sequence[PreparedSource],
    selection: Selection,
    *,
    renderers: Mapping[Profile, Renderer],
    log: BuildLog,
) -> Path:
    """Give the mix version its name, then point current.json at it."""
    num_selected = count_selected(prepared, selection.rows)
    root = Path(config.mix.root) / config.mix_name
    with staging_folder(root) as staging:
        staged = staging / "version"
        with writing(staged):
            staged.mkdir()
            write_table(selection.rows, staged / "selection.parquet")
        selection_hash = file_hash(staged / "selection.parquet")
        manifest = make_manifest(
            config,
            prepared,
            renderers,
            num_selected=num_selected,
            num_tokens=count_tokens(selection.rows),
            selection_hash=selection_hash,
            notes=[*(text for source in prepared for text in source.plan.notes), *selection.notes],
        )
        fact(f"select: {sum(num_selected.values()):,} of {selection.rows.num_rows:,} samples, {len(prepared)} datasets")
        log.note("select", selected=sum(num_selected.values()), fingerprint=manifest.fingerprint)
        with writing(staged):
            (staged / "build_log.jsonl").write_text("\n".join(log.lines) + "\n")
            (staged / "manifest.json").write_text(manifest_text(manifest))
        version = root / manifest.fingerprint
        if version.exists():
            _check_version(version, manifest, staging)
        else:
            publish_folder(staged, version, marker="manifest.json")
        current: dict[str, Any] = {"fingerprint": manifest.fingerprint}
        publish_text(json_text.dumps_indented(current), root / "current.json", staging=staging)
    return version


def _check_version(version: Path, manifest: Manifest, staging: Path) -> None:
    """The version is there already: see that it is whole, and that it finds shards that have moved."""
    try:
        found = read_manifest(version)
    except DataError as error:
        raise DataError(f"{error}\nor move {version} away and build again") from error
    selection = version / "selection.parquet"
    if not selection.is_file() or file_hash(selection) != found.selection_xxh3_128:
        raise DataError(f"{selection}: missing or damaged; move {version} away and build again")
    publish_text(manifest_text(manifest), version / "manifest.json", staging=staging)
