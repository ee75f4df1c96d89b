"""The story of an export: the selected samples of a mix, dataset by dataset, in a form that any other tool reads."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_catalogs import json_text
from vlm_catalogs.console import Progress, fact, note
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.hashing import content_hash, file_hash
from vlm_catalogs.layout import part_folder, shard_name
from vlm_catalogs.manifest import Manifest, MixDataset, read_manifest
from vlm_catalogs.mix_place import bring_parts, layout_folder, pinned_parts
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_prep.export.jsonl import write_jsonl
from vlm_prep.export.webdataset import write_webdataset
from vlm_prep.staging import STAGING, staging_folder
from vlm_prep.verify.targets import Target, find_target

WRITERS = {"jsonl": write_jsonl, "webdataset": write_webdataset}
META_FILE = "meta.json"


def export_mix(path: str, folder: Path, *, file_format: str, copies: ObjectCopies | None = None) -> int:
    """How many samples now stand in ``folder``, which must not exist or be empty; it appears whole or not at all.

    Raises ConfigError for a wrong path or a folder in use, DataError for a mix that is damaged, StorageError.
    """
    target = find_target(path, copies=copies)
    mix = target.mix
    if mix is None:
        raise ConfigError(f"{path}: converted sources; name a mix, since a mix says which samples are selected")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: exists and is not an empty folder; name another one")
    manifest = read_manifest(mix)
    bring_parts(pinned_parts(mix, manifest, target.copies), target.copies, tables=())
    parent = folder.absolute().parent
    with staging_folder(parent) as staging:
        staged = staging / "export"
        staged.mkdir()
        try:
            num_samples = _write(target, mix, manifest, staged, file_format)
            if folder.exists():
                folder.rmdir()
            staged.rename(folder)
        except OSError as error:
            raise StorageError(f"{folder}: cannot be written: {error.strerror or error}") from error
    with suppress(OSError):  # another export may be at work there
        (parent / STAGING).rmdir()
    fact(f"export: {num_samples:,} samples, {len(manifest.datasets)} datasets, {file_format}: {folder}")
    return num_samples


def _write(target: Target, mix: Path, manifest: Manifest, staged: Path, file_format: str) -> int:
    numbers = {dataset.name: dataset.num_selected for dataset in manifest.datasets}
    with Progress("export", total=sum(numbers.values())) as progress:
        for dataset in manifest.datasets:
            samples = _selected(target, mix, manifest, dataset, progress)
            left_out = WRITERS[file_format](dataset.name, samples, staged)
            if left_out:
                note(
                    f"{dataset.name}: unused media of {left_out:,} samples are left out: <image> or <video> stands in "
                    "their texts, which would come to mean those media"
                )
    meta = {"total_items": sum(numbers.values()), "mix": manifest.name, "fingerprint": manifest.fingerprint}
    shares = [
        {"name": d.name, "samples": d.num_selected, "weight": d.weight, "share": d.share, "draws": d.num_draws}
        for d in manifest.datasets
    ]
    (staged / META_FILE).write_text(json_text.dumps_indented({**meta, "datasets": shares}))
    return sum(numbers.values())


def _selected(
    target: Target, mix: Path, manifest: Manifest, dataset: MixDataset, progress: Progress
) -> Iterator[Sample]:
    """The selected train samples of one dataset, in source order. Raises DataError for what is not as it was built."""
    path = mix / "selection.parquet"
    if not path.is_file() or file_hash(path) != manifest.selection_xxh3_128:
        raise DataError(f"{path}: missing or damaged; run vlm-prep build-mix again")
    columns = ["dataset", "selected", "split", "part", "shard", "index_in_shard"]
    rows = pq.read_table(path, columns=columns, filters=[("dataset", "==", dataset.name), ("split", "==", "train")])
    rows = rows.filter(rows["selected"])
    for part in dataset.parts:
        chosen = rows.filter(pc.equal(rows["part"], part.name)).sort_by(
            [("shard", "ascending"), ("index_in_shard", "ascending")]
        )
        folder = part_folder(layout_folder(mix, dataset, target.copies), part.name)
        for shard in pc.unique(chosen["shard"]).to_pylist():
            indexes = chosen.filter(pc.equal(chosen["shard"], shard))["index_in_shard"].to_pylist()
            with target.copies.fetched(folder / shard_name(shard)) as path:
                for sample in _read(path, indexes):
                    yield sample
                    progress.advance()


def _read(path: Path, indexes: list[int]) -> Iterator[Sample]:
    with ShardReader(path) as reader:
        for index in indexes:
            sample = reader.read(index)
            for facts in sample.media_table:
                if content_hash(sample.medium(facts.name)) != facts.xxh3_128:
                    what = f"sample {index} ({sample.sample_id}): {facts.name}"
                    raise DataError(f"{path}: {what} is not what its hash says: damaged; run vlm-prep verify")
            yield sample
