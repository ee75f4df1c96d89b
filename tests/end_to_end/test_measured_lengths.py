"""What was measured from the index alone is what encoding gives: real media decoded, resized and cut into patches."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.random_samples import write_sources

from vlm_catalogs.config import Config, load_config
from vlm_catalogs.layout import shard_name
from vlm_catalogs.render import RenderProblem
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_prep.build import build_mix
from vlm_train.load import load_family_of
from vlm_train.make_tiny import make_tiny
from vlm_train.models.family import EncodedMedium, EncodedSample, Family
from vlm_train.open_mix import OpenMix, load_renderers, open_mix

FAMILIES = ("qwen3_vl", "qwen3_vl_moe", "nemotron_h_omni", "cosmos3_edge")
COLUMNS = ("text_tokens", "image_tokens", "video_tokens", "total_tokens", "supervised_tokens", "vision_patches")
TOML = """
[custom]
use_i4 = true
include_video = true
i4_data_source = "listed.weights"

[policy]
model_name_or_path = "{family}"
model_max_length = 4096

[train.train_policy]
system_prompt = "You see."

[mix]
i4_root = "bucket"
num_workers = 1

[[mix.source]]
name = "lines"
path = "lines.jsonl"
"""


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "qwen3_vl_moe"])  # of one processor
def test_measured_lengths_are_the_encoded_ones(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_lengths(family, tmp_path, monkeypatch, num_samples=24)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_measured_lengths_of_500_random_samples(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_lengths(family, tmp_path, monkeypatch, num_samples=500)


def check_lengths(family: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, num_samples: int) -> None:
    """Every conversation of every random sample: the row of lengths against the tensors."""
    monkeypatch.chdir(folder)
    write_sources(folder, num_samples=num_samples, seed=num_samples)
    make_tiny(family, folder / family)
    Path("mix.toml").write_text(TOML.format(family=family))
    config = load_config(Path("mix.toml"))
    build_mix(config)
    mix, model = open_mix(config), load_family_of(config)
    seen: Counter[str] = Counter()
    for measured, encoded in conversations(config, mix, model, seen):
        assert measured == counts_of(encoded, model), encoded.sample_id
    assert seen["samples"] == num_samples, "none is rejected, and each has its rows"
    assert seen["refused"] < 0.05 * num_samples
    assert seen["conversations"] > 1.2 * num_samples and min(seen["image"], seen["video"]) > 0.3 * num_samples


def conversations(
    config: Config, mix: OpenMix, family: Family, seen: Counter[str]
) -> Iterator[tuple[dict[str, int], EncodedSample]]:
    """The measured row and the tensors of each conversation that can be rendered."""
    renderers = load_renderers(config, mix)
    for dataset in mix.manifest.datasets:
        for part in dataset.parts:
            folder = mix.part(dataset.name, part.name)
            rows = pq.read_table(folder / part.lengths).to_pylist()
            for sample, key in samples_of(folder):
                seen["samples"] += 1
                of_sample = [row for row in rows if row["sample_key"] == key]
                assert [row["alternative"] for row in of_sample] == list(range(1 + len(sample.alternatives)))
                for row in of_sample:
                    messages = sample.conversation(row["alternative"])
                    if row["problem"] is not None:
                        with pytest.raises(RenderProblem, match=re.escape(row["problem"].partition(": ")[2])):
                            renderers[dataset.name].render(messages, sample.media_table)
                        seen["refused"] += 1
                        continue
                    rendered = renderers[dataset.name].render(messages, sample.media_table)
                    encoded = family.encode(sample, rendered)
                    seen["conversations"] += 1
                    seen.update(medium.kind for medium in encoded.media)
                    yield {name: row[name] for name in COLUMNS}, encoded


def samples_of(folder: Path) -> Iterator[tuple[Sample, int]]:
    for row in pq.read_table(folder / "samples.parquet", filters=[("status", "=", "kept")]).to_pylist():
        with ShardReader(folder / shard_name(row["shard"])) as reader:
            yield reader.read(row["index_in_shard"]), row["sample_key"]


def counts_of(encoded: EncodedSample, family: Family) -> dict[str, int]:
    """The columns of a row of lengths, from tensors alone: ids, labels and pixels."""
    patches = {kind: [patches_of(one) for one in encoded.media if one.kind == kind] for kind in ("image", "video")}
    merged = 4  # patches to a token, in all these families
    tokens = {kind: sum(counts) // merged for kind, counts in patches.items()}
    ids = getattr(family, "placeholder_ids", None) or (family.image_token_id,)  # type: ignore[attr-defined]
    assert np.isin(encoded.input_ids_T.numpy(), ids).sum() == tokens["image"] + tokens["video"]
    batch = family.collate([[encoded]])
    assert batch.num_tokens == len(encoded.input_ids_T)
    return {
        "text_tokens": len(encoded.input_ids_T) - tokens["image"] - tokens["video"],
        "image_tokens": tokens["image"],
        "video_tokens": tokens["video"],
        "total_tokens": len(encoded.input_ids_T),
        "supervised_tokens": batch.num_supervised_tokens,
        "vision_patches": sum(patches["image"]) + sum(patches["video"]),
    }


def patches_of(medium: EncodedMedium) -> int:
    """How many patches the pixels are: rows of patches, or whole frames of which two make one layer of patches."""
    if medium.pixels.ndim == 2:
        return len(medium.pixels)
    frames, _, height, width = medium.pixels.shape
    return -(-frames // 2) * (height // 16) * (width // 16)
