"""The stage that writes a mix version; current.json is swapped last."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.manifest import CURRENT_FILE, MANIFEST_FILE, SELECTION_FILE, Manifest, manifest_text, read_manifest
from vlm_catalogs.render import Renderer
from vlm_catalogs.render.settings import Profile
from vlm_prep.build_log import BuildLog
from vlm_prep.mix import PreparedSource, make_manifest
from vlm_prep.part_store import PartStore
from vlm_prep.row_groups import write_table
from vlm_prep.select import Selection
from vlm_prep.select_stage import count_selected, count_tokens
from vlm_prep.staging import writing


def publish_mix(
    config: Config,
    prepared: Sequence[PreparedSource],
    selection: Selection,
    *,
    store: PartStore,
    renderers: Mapping[Profile, Renderer],
    log: BuildLog,
) -> Path:
    """Give the mix version its name, then point current.json at it."""
    num_selected = count_selected(prepared, selection.rows)
    with store.staging() as staging:
        staged = staging / "version"
        with writing(staged):
            staged.mkdir()
            write_table(selection.rows, staged / SELECTION_FILE)
        selection_hash = file_hash(staged / SELECTION_FILE)
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
            (staged / MANIFEST_FILE).write_text(manifest_text(manifest))
        version = store.folder / manifest.fingerprint
        store.bring([version / MANIFEST_FILE, version / SELECTION_FILE], below=version)
        if (version / MANIFEST_FILE).exists():
            _check_version(version, manifest, store, staging)
        else:
            store.publish_version(staged, version)
        current: dict[str, Any] = {"fingerprint": manifest.fingerprint}
        store.publish_text(json_text.dumps_indented(current), store.folder / CURRENT_FILE, staging=staging)
    return version


def _check_version(version: Path, manifest: Manifest, store: PartStore, staging: Path) -> None:
    """The version is there already: see that it is whole, and that it finds shards that have moved."""
    try:
        found = read_manifest(version)
    except DataError as error:
        raise DataError(f"{error}\nits folder is {store.shown(version)}") from error
    selection = version / SELECTION_FILE
    if not selection.is_file() or file_hash(selection) != found.selection_xxh3_128:
        raise DataError(
            f"{store.shown(selection)}: missing or damaged; move {store.shown(version)} away and build again"
        )
    store.publish_text(manifest_text(manifest), version / MANIFEST_FILE, staging=staging)
