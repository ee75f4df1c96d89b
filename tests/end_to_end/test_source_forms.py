"""The demo's samples come out of ``vlm-prep build-mix`` the same, whichever form they were brought in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_catalogs.json_text import dumps
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data"
DATASETS = ("demo_clipart", "demo_photos", "demo_video")

HEAD = f"""
[custom]
use_i4 = true
include_video = true

[policy]
model_name_or_path = "tiny"
model_max_length = 1024

[mix]
num_workers = 1
i4_root = '{DEMO / "i4"}'
"""

Stored = tuple[str, str, bytes, str]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of a mix of the i4 datasets, of the same samples as JSONL, and of the LLaVA array."""
    folder = tmp_path_factory.mktemp("forms")
    make_tiny("qwen3_vl", folder / "tiny")
    files = {f"jsonl_{name}": DEMO / "jsonl" / f"{name}.jsonl" for name in DATASETS}
    files["llava"] = DEMO / "llava" / "demo_llava.json"
    tables = [f"[[mix.source]]\nname = '{name}'\npath = '{path}'\n" for name, path in files.items()]
    (folder / "mix.toml").write_text(HEAD + "".join(tables))
    subprocess.run([Path(sys.executable).parent / "vlm-prep", "build-mix", "mix.toml"], cwd=folder, check=True)
    return folder / "shards"


def read_samples(shards: Path, dataset: str) -> list[Sample]:
    readers = [ShardReader(path) for path in sorted((shards / dataset).glob("*/parts/*/shard.*.mds"))]
    return [reader.read(index) for reader in readers for index in range(reader.num_samples)]


def stored(sample: Sample) -> Stored:
    """What must not depend on the form: all but the sample's id, its dataset and its meta."""
    table = dumps([facts.as_row() for facts in sample.media_table])
    return dumps(sample.messages), dumps(sample.alternatives), bytes(sample.media), table


@pytest.mark.parametrize("dataset", DATASETS)
def test_i4_and_jsonl_give_the_same_samples(shards: Path, dataset: str) -> None:
    from_i4 = [stored(sample) for sample in read_samples(shards, dataset)]
    from_jsonl = [stored(sample) for sample in read_samples(shards, f"jsonl_{dataset}")]
    lines = (DEMO / "jsonl" / f"{dataset}.jsonl").read_text().splitlines()
    assert len(from_i4) == len(lines)
    assert from_i4 == from_jsonl


def test_llava_gives_the_same_samples_for_what_its_words_can_say(shards: Path) -> None:
    from_jsonl = {stored(sample) for dataset in DATASETS for sample in read_samples(shards, f"jsonl_{dataset}")}
    from_llava = {stored(sample) for sample in read_samples(shards, "llava")}
    assert len(from_llava) == len(json.loads((DEMO / "llava" / "demo_llava.json").read_text()))
    assert from_llava - from_jsonl == set()
