"""Small shards of noise with a whole index, as conversion leaves them, and the plan of an epoch over them."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs import json_text
from vlm_catalogs.hashing import content_hash, sample_key
from vlm_catalogs.layout import PartRecord, StoredFile, part_folder
from vlm_catalogs.manifest import Encoding, Manifest, MixDataset
from vlm_catalogs.object_store import S3Location
from vlm_catalogs.sample import MediaFacts
from vlm_catalogs.tables import LENGTHS, SAMPLES, SELECTION
from vlm_prep.mds_shard import COLUMN_NAMES, ShardWriter
from vlm_train.draws import DatasetToDraw, OrderSettings
from vlm_train.epoch import plan_epoch
from vlm_train.open_mix import OpenMix

PART = "part-0"
SAMPLES_PER_SHARD = 4


def make_mix(
    folder: Path, sizes: Mapping[str, tuple[int, int]], *, samples_per_shard: int = SAMPLES_PER_SHARD
) -> OpenMix:
    """A mix of datasets of (samples, bytes of the medium of each), all below ``folder``."""
    for name, (num_samples, num_bytes) in sizes.items():
        write_part(part_folder(folder / "shards" / name, PART), name, num_samples, num_bytes, samples_per_shard)
    return describe_mix(folder, sizes)


def describe_mix(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> OpenMix:
    """The mix of parts that stand below ``folder``."""
    datasets = [
        MixDataset(
            name=name, format="jsonl", weight=1.0, share=1 / len(sizes), num_draws=num_samples,
            num_converted=num_samples, num_rejected=0, num_selected=num_samples,
            shards=f"../shards/{name}", source_fingerprint="", parts=(),
        )
        for name, (num_samples, _) in sizes.items()
    ]  # fmt: skip
    manifest = Manifest(
        name="small", fingerprint="0", seed=0, weight_unit="samples", epoch_samples=0, model_max_length=64,
        length_policy="drop", encoding=Encoding(fingerprint="0", family="", model_type="", settings={}),
        selection_xxh3_128="", settings={}, datasets=tuple(datasets),
    )  # fmt: skip
    return OpenMix(folder=folder / "mix", manifest=manifest)


def stored(mix: OpenMix, bucket: str) -> OpenMix:
    """The mix, whose shards lie in ``bucket`` under the names that they have below the mix's parent."""
    remote = {one.name: S3Location(bucket=bucket, key=f"shards/{one.name}") for one in mix.manifest.datasets}
    return replace(mix, remote=remote)


def plan(mix: OpenMix, *, rows_per_step: int = 2, draws: Mapping[str, int] | None = None) -> pa.Table:
    """The table of epoch 0."""
    datasets = [
        dataset_to_draw(mix, dataset.name, (draws or {}).get(dataset.name, dataset.num_draws))
        for dataset in mix.manifest.datasets
    ]
    return plan_epoch(datasets, epoch=0, order=OrderSettings(seed=1, rows_per_step=rows_per_step))


def write_part(
    folder: Path, dataset: str, num_samples: int, num_bytes: int, samples_per_shard: int = SAMPLES_PER_SHARD
) -> None:
    folder.mkdir(parents=True)
    noise = random.Random(dataset)
    writer = ShardWriter(folder, size_limit=samples_per_shard * (num_bytes + 700))
    positions = []
    for number in range(num_samples):
        media = noise.randbytes(num_bytes)
        facts = MediaFacts(
            name="image_0", kind="image", format="png", offset=0, size=num_bytes, xxh3_128=content_hash(media),
            width=4, height=2,
        )  # fmt: skip
        columns = {
            "sample_id": f"{dataset}#{number:09d}".encode(),
            "dataset": dataset.encode(),
            "messages": b'[{"role": "user", "content": [{"type": "image", "image": "image_0"}]}]',
            "alternatives": b"[]",
            "media": media,
            "media_table": json_text.dumps([facts.as_row()]).encode(),
            "meta": b"{}",
        }
        positions.append(writer.write([columns[name] for name in COLUMN_NAMES]))
    shards = writer.finish()
    lines = [
        {
            "dataset": dataset,
            "sample_id": f"{dataset}#{number:09d}",
            "sample_key": sample_key(dataset, f"{dataset}#{number:09d}"),
            "source_uri": f"{dataset}.tar",
            "member": f"{number}.json",
            "status": "kept",
            "part": PART,
            "shard": at.shard,
            "index_in_shard": at.index,
            "byte_begin": shards[at.shard].offsets[at.index],
            "byte_end": shards[at.shard].offsets[at.index + 1],
        }
        for number, at in enumerate(positions)
    ]
    pq.write_table(pa.Table.from_pylist(lines, schema=SAMPLES), folder / "samples.parquet")
    record = PartRecord(
        name=PART, dataset=dataset, shard_format=1, inputs=(), num_kept=num_samples, num_rejected=0,
        shards=tuple(StoredFile(name=one.name, bytes=one.bytes, xxh3_128=one.xxh3_128) for one in shards),
        shard_samples=tuple(one.num_samples for one in shards), tables=(),
    )  # fmt: skip
    (folder / "part.json").write_text(record.as_json())


def dataset_to_draw(mix: OpenMix, name: str, num_draws: int) -> DatasetToDraw:
    index = pq.read_table(mix.part(name, PART) / "samples.parquet")
    selected = {"selected": True, "split": "train", "num_alternatives": 1, "total_tokens": 8}
    numbers = {"alternative": 0, "total_tokens": 8, "supervised_tokens": 4, "vision_patches": 4}
    rows = index.to_pylist()
    return DatasetToDraw(
        name=name,
        num_draws=num_draws,
        samples=pa.Table.from_pylist([{**row, **selected} for row in rows], schema=SELECTION),
        lengths=pa.Table.from_pylist([{**row, **numbers} for row in rows], schema=LENGTHS),
    )
