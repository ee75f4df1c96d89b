"""``[policy.lora]`` through the real commands: small checkpoints, exact resume, both exports, no other base."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tests.small_mixes import DEMO, model_and_mix, source, write_demo
from transformers import AutoModelForImageTextToText

from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.make_tiny import make_tiny

TOML = """
[train]
max_num_steps = 4
epoch = 9
train_batch_per_replica = 2
optm_lr = {{ "visual" = 1e-2, "default" = 5e-3 }}
optm_warmup_steps = 1
param_dtype = "float32"

[train.ckpt]
enable_checkpoint = true
save_freq = 2

[policy.lora]
r = 4
lora_alpha = 8
lora_dropout = 0.1
target_modules = "all-linear"
"""
TOML += model_and_mix(512) + source("pictures", "{folder}/pictures.jsonl", media_root="{demo}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("lora")
    make_tiny("qwen3_vl", place / "model")
    write_demo(place / "pictures.jsonl", demo_clipart=5)
    (place / "small.toml").write_text(TOML.format(folder=place, demo=DEMO))
    assert prep(["build-mix", str(place / "small.toml")]) == 0
    assert run(place, "whole") == 0
    return place


def run(place: Path, name: str, *more: str) -> int:
    return train(["run", str(place / "small.toml"), "--set", f"train.output_dir={place / name}", *more])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["train/loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_checkpoint_holds_the_adapters_and_resume_goes_on_to_the_bit(folder: Path) -> None:
    base = sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors"))
    saved = sum(path.stat().st_size for path in (folder / "whole" / "checkpoints" / "step-4").glob("*.distcp"))
    assert saved < 0.8 * base  # adapters of every layer with two moments; the whole model with its own would be 3 times
    assert run(folder, "resumed", "--set", "train.max_num_steps=2") == 0
    assert run(folder, "resumed", "--resume") == 0
    assert losses(folder / "resumed") == losses(folder / "whole")
    for kind in ("adapters/step-4/adapter_model", "safetensors/step-4/model"):
        one, other = (load_file(folder / name / f"{kind}.safetensors") for name in ("whole", "resumed"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_merged_model_equals_the_base_with_its_adapter(folder: Path) -> None:
    assert train(["export", str(folder / "whole"), str(folder / "adapter"), "--adapter"]) == 0
    base = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32)
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        untrained = base(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()(input_ids=ids).logits
        merged = AutoModelForImageTextToText.from_pretrained(folder / "whole" / "safetensors" / "step-4")
        found = merged.eval()(input_ids=ids).logits
    assert (adapted - untrained).abs().max() > 1e-2
    assert (found - adapted).abs().max() <= 1e-5


def test_another_base_or_other_adapters_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "whole", "--resume", "--set", "policy.lora.r=8") == 2
    assert "policy.lora: it was" in capsys.readouterr().err
    weights = folder / "model" / "model.safetensors"
    original = weights.read_bytes()
    tensors = load_file(weights)
    save_file({name: value + 1e-3 for name, value in tensors.items()}, weights, metadata={"format": "pt"})
    try:
        assert run(folder, "whole", "--resume") == 2
        assert "base weights: it was" in capsys.readouterr().err
        assert train(["export", str(folder / "whole"), str(folder / "other")]) == 2
        assert "put the base model back" in " ".join(capsys.readouterr().err.split())
    finally:
        weights.write_bytes(original)


def test_patterns_beside_adapters_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "new", "--set", 'policy.freeze_pattern=["visual"]') == 2
    assert "has no effect beside [policy.lora]" in capsys.readouterr().err
