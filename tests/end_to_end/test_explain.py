"""``vlm-train explain``: a poisoned sample heads the list of its step and makes its steps spikes."""

import json
import math
import shutil
from pathlib import Path

import pytest
from tests.small_mixes import model_and_mix, source, write_conversations

from vlm_prep.cli import main as prep
from vlm_train.cli import main as train
from vlm_train.make_tiny import make_tiny
from vlm_train.spikes import spike_steps

TOML = """
[train]
max_num_steps = 120
epoch = 99
train_batch_per_replica = 4
optm_lr = 3e-3
optm_warmup_steps = 1
param_dtype = "float32"
output_dir = "{folder}/run"

[train.train_policy]
mini_batch = 2

[train.ckpt]
export_safetensors = false
"""
TOML += model_and_mix(512) + source("said", "{folder}/said.jsonl")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    make_tiny("qwen3_vl", folder / "model")
    answers = ["the sky is blue"] * 79 + ["xq zz vv kk ww jj qq"]
    pairs = [(f"question {number}", answer) for number, answer in enumerate(answers)]
    write_conversations(folder / "said.jsonl", pairs)
    (folder / "small.toml").write_text(TOML.format(folder=folder))
    assert prep(["build-mix", str(folder / "small.toml")]) == 0
    assert train(["run", str(folder / "small.toml")]) == 0
    return folder / "run"


def explained(run: Path, capsys: pytest.CaptureFixture[str], *which: str) -> list[dict]:
    capsys.readouterr()
    assert train(["explain", str(run), *which, "--json"]) == 0
    found: list[dict] = json.loads(capsys.readouterr().out)
    return found


def test_the_poisoned_sample_heads_its_step(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spikes = explained(run, capsys, "--spikes")
    assert spikes
    for step in spikes:
        worst = step["samples"][0]
        assert worst["sample_id"].endswith("#000000079")
        assert worst["source"] == "said.jsonl"
        assert worst["loss"] > step["loss"]
        assert len(step["samples"]) == 4
        total = sum(one["loss"] * one["supervised_tokens"] for one in step["samples"])
        assert total / sum(one["supervised_tokens"] for one in step["samples"]) == pytest.approx(step["loss"], rel=1e-5)
        assert sum(one["loss_share"] for one in step["samples"]) == pytest.approx(1)
    [one] = explained(run, capsys, "--step", str(spikes[0]["step"]))
    assert one == spikes[0]


def test_people_read_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert train(["explain", str(run), "--step", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("step 3 (epoch 0, its step 2): loss ")
    assert said.count("said.jsonl") == 8  # four samples: in their ids, and as their source


def test_a_step_or_run_that_is_not_there_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["explain", str(run), "--step", "121"]) == 2
    assert "no step 121 in its metrics; there are 1 to 120" in capsys.readouterr().err
    assert train(["explain", str(run.parent), "--spikes"]) == 2
    assert "is it the output_dir of a run?" in " ".join(capsys.readouterr().err.split())


def test_spikes_are_judged_by_the_median_of_what_came_before() -> None:
    calm = [2.0, 2.1, 1.9, 2.0, 2.05, 1.95] * 4
    assert spike_steps(calm) == []
    assert spike_steps([*calm, 9.0, *calm, math.nan]) == [len(calm), 2 * len(calm) + 1]
    assert spike_steps([9.0, *calm[:8], 9.0]) == []  # too few before it
    falling = [5.0 * 0.9**step for step in range(60)]
    assert spike_steps(falling) == []


@pytest.mark.parametrize("name", ["epochs", "sample_loss"])
def test_a_damaged_table_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    damaged = sorted((copy / name).rglob("part-*.parquet"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert train(["explain", str(copy), "--step", "2"]) == 2
    assert f"{damaged}: damaged" in capsys.readouterr().err
