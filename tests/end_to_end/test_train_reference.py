"""The first losses of each family equal those of a plain loop that knows nothing of this project."""

import importlib.util
import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from tests.small_mixes import DEMO, model_and_mix, source, write_demo_of_any_media

from vlm_catalogs.render import RenderSettings, load_renderer
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_train.cli import main
from vlm_train.make_tiny import FAMILIES, make_tiny

TESTS = Path(__file__).parents[1]
LR = 2e-3
MAX_LENGTH = 1024

TOML = """
[custom]
include_video = true
enable_moe_load_balancing_training = false

[train]
max_num_steps = 5
epoch = 5
output_dir = "{folder}/run"
train_batch_per_replica = 4
optm_lr = {lr}
optm_warmup_steps = 0
optm_weight_decay = 0.01
epsilon = 1e-8
optm_grad_norm_clip = 0.0
param_dtype = "float32"

[train.train_policy]
mini_batch = 2

[train.ckpt]
export_safetensors = false
"""
TOML += model_and_mix("{length}") + source("demo", "{folder}/data", media_root="{demo}")


def reference_loops() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loops", TESTS / "train" / "models" / "reference_loops.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(folder: Path, family: str) -> list[float]:
    """The losses of our loop: the real commands, on a mix of pictures, films and text."""
    make_tiny(family, folder / "model")
    write_demo_of_any_media(folder / "data")
    (folder / "small.toml").write_text(TOML.format(folder=folder, demo=DEMO, lr=LR, length=MAX_LENGTH))
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(folder / "small.toml")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=folder)
    assert main(["run", str(folder / "small.toml")]) == 0
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train/loss"] for line in lines]


def plain_steps(folder: Path) -> list[list[dict[str, Any]]]:
    """The samples of each step as the plain loop takes them, read from the shards in the order of the epoch tables."""
    rows = [
        row
        for path in sorted((folder / "run" / "epochs").glob("*/*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    steps: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] == "planned":
            steps.setdefault((row["epoch"], row["step"]), []).append(plain_sample(folder, row))
    return list(steps.values())[:5]


def plain_sample(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    (part,) = (folder / "shards" / "demo").glob(f"*/parts/{row['part']}")
    sample = ShardReader(part / f"shard.{row['shard']:05d}.mds").read(row["index_in_shard"])
    assert sample.sample_id == row["sample_id"]
    settings = RenderSettings(profile="normal", model_max_length=MAX_LENGTH)
    rendered = load_renderer(str(folder / "model"), settings=settings).render(sample.messages, sample.media_table)
    frames = {plan.name: plan.frame_indices for plan in rendered.media if plan.kind == "video"}
    images = [plan.name for plan in rendered.media if plan.kind == "image"]
    return {
        "messages": sample.messages,
        "images": [upright_over_white(Image.open(file_of(sample, name))) for name in images],
        "videos": [plain_video(sample, name, indices) for name, indices in frames.items()],
    }


def upright_over_white(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def plain_video(sample: Sample, name: str, indices: tuple[int, ...]) -> dict[str, Any]:
    with av.open(file_of(sample, name)) as container:
        every = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    facts = next(facts for facts in sample.media_table if facts.name == name)
    frames = torch.from_numpy(np.stack([every[index] for index in indices]))
    return {"frames": frames, "indices": indices, "fps": facts.fps, "total": facts.frames}


def file_of(sample: Sample, name: str) -> Any:
    return BytesIO(bytes(sample.medium(name)))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_five_losses_equal_those_of_a_plain_loop(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    ours = train(tmp_path, family)
    steps = plain_steps(tmp_path)
    samples = [sample for step in steps for sample in step]
    assert any(sample["images"] for sample in samples)
    assert any(sample["videos"] for sample in samples)
    assert any(not sample["images"] and not sample["videos"] for sample in samples)
    theirs = reference_loops().reference_losses(tmp_path / "model", steps, lr=LR)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert len(ours) == 5
