"""The loss on held-out samples: when it is measured, on what, and that training counts the same samples alike."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.small_mixes import DEMO, write_demo

from vlm_train.cli import main
from vlm_train.make_tiny import make_tiny

TOML = """
[train]
max_num_steps = 5
epoch = 99
output_dir = "never_used"
train_batch_per_replica = 4
optm_lr = 2e-3
optm_warmup_steps = 0
param_dtype = "float32"

[train.train_policy]
mini_batch = 2
dataset = {name = "data", test_size = 5}

[train.ckpt]
enable_checkpoint = true
save_freq = 1
max_keep = 1
export_safetensors = false

[validation]
enable = true
freq = 2
val_before_train = true
batch_size = 2
generate = 3
max_response_length = 6

[policy]
model_name_or_path = "model"
model_max_length = 1024

[custom]
include_video = true

[mix]
num_workers = 1
"""


def vlm_prep(*arguments: str) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "vlm_prep.cli", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def train(run: str, *settings: str, config: str = "run.toml") -> int:
    given = [f"train.output_dir={run}", *settings]
    return main(["run", config, *(text for one in given for text in ("--set", one))])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix, and a run on it in one process."""
    return prepare(tmp_path_factory.mktemp("validation"), "qwen3_vl")


def prepare(place: Path, family: str) -> Path:
    """A model, samples of pictures, films and text in one dataset of which five are held out, and a run on them."""
    make_tiny(family, place / "model")
    write_demo(place / "data" / "samples.jsonl", demo_clipart=6, demo_photos=6, demo_video=6)
    shutil.copytree(DEMO / "media", place / "data" / "media")
    (place / "run.toml").write_text(TOML)
    before = Path.cwd()
    os.chdir(place)
    try:
        vlm_prep("build-mix", "run.toml")
        assert train("whole") == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def held_out_keys(mix: Path) -> set[int]:
    version = json.loads((mix / "current.json").read_text())["fingerprint"]
    rows = pq.read_table(mix / version / "selection.parquet").to_pylist()
    return {row["sample_key"] for row in rows if row["selected"] and row["split"] == "eval"}


def test_it_is_measured_before_the_first_step_on_schedule_and_at_the_end(folder: Path) -> None:
    found = lines(folder / "whole" / "validation.jsonl")
    assert [line["step"] for line in found] == [0, 2, 4, 5]
    assert all(line["validation/samples"] == len(held_out_keys(folder / "mixes" / "run")) for line in found)
    steps = {line["step"]: line for line in lines(folder / "whole" / "metrics.jsonl")}
    assert [step for step, line in steps.items() if "validation/loss" in line] == [2, 4, 5]
    assert steps[4]["validation/loss"] == found[2]["validation/loss"] == found[2]["validation/loss/data"]
    assert found[-1]["validation/loss"] < found[0]["validation/loss"]


def test_a_few_held_out_samples_are_answered_at_each_validation(folder: Path) -> None:
    found = lines(folder / "whole" / "validation_samples.jsonl")
    by_step = {step: [line for line in found if line["step"] == step] for step in (0, 2, 4, 5)}
    assert sum(map(len, by_step.values())) == len(found) == 12
    names = [line["sample_id"] for line in by_step[0]]
    assert len(set(names)) == 3
    assert all([line["sample_id"] for line in of_step] == names for of_step in by_step.values())
    assert all(0 < line["num_tokens"] <= 6 and line["reference"] for line in found)
    assert len({json.dumps([line["answer"] for line in of_step]) for of_step in by_step.values()}) > 1
    selection = pq.read_table(next((folder / "mixes" / "run").glob("*/selection.parquet"))).to_pylist()
    held_out = {row["sample_id"] for row in selection if row["split"] == "eval" and row["selected"]}
    assert set(names) <= held_out


def test_generate_answers_a_sample_as_the_run_did(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the checkpoint, from its export in the run's folder, and by default."""
    logged = [line for line in lines(folder / "whole" / "validation_samples.jsonl") if line["step"] == 5]
    for line in logged[:2]:
        shared = {name: line[name] for name in ("dataset", "sample_id", "prompt", "answer", "reference")}
        found = generated(capsys, f"{line['dataset']}/{line['sample_id']}")
        assert found["model"] == "whole/checkpoints/step-5"
        assert {name: found[name] for name in shared} == shared
    assert main(["export", "whole", "whole/safetensors/step-5"]) == 0
    try:
        capsys.readouterr()
        exported = generated(capsys, logged[0]["sample_id"], "--step", "5")
        assert exported == {**exported, "model": "whole/safetensors/step-5", "answer": logged[0]["answer"]}
    finally:
        shutil.rmtree(folder / "whole" / "safetensors")
    assert main(["generate", "whole", "--sample", logged[0]["sample_id"], "--max-new-tokens", "3"]) == 0
    shown = capsys.readouterr().out
    assert "answer (cut off after 3 tokens: --max-new-tokens):" in shown
    assert shown.rstrip().endswith(logged[0]["reference"])


def generated(capsys: pytest.CaptureFixture[str], sample: str, *more: str) -> dict[str, Any]:
    assert main(["generate", "whole", "--sample", sample, "--max-new-tokens", "6", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


def test_generate_names_the_steps_and_samples_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "whole", "--sample", "x", "--step", "3"]) == 2
    assert "there are steps 5" in capsys.readouterr().err
    assert main(["generate", "whole", "--sample", "x"]) == 2
    assert "no sample of this mix has that id" in capsys.readouterr().err
    assert main(["generate", "data", "--sample", "x"]) == 2
    assert "no export and no complete checkpoint" in capsys.readouterr().err


def test_held_out_samples_are_never_trained_on(folder: Path) -> None:
    held_out = held_out_keys(folder / "mixes" / "run")
    assert len(held_out) >= 5
    drawn = {
        key
        for path in (folder / "whole" / "epochs").rglob("part-*.parquet")
        for key in pq.read_table(path)["sample_key"].to_pylist()
    }
    assert drawn and not drawn & held_out


def test_the_loss_is_the_one_that_training_counts_of_the_same_samples(folder: Path) -> None:
    """A second mix holds nothing out; one step over all of it, at the first weights, has the loss of each sample."""
    text = TOML.replace(", test_size = 5", "").replace("enable = true\nfreq", "enable = false\nfreq")
    (folder / "all.toml").write_text(text.replace("max_num_steps = 5", "max_num_steps = 1"))
    vlm_prep("build-mix", "all.toml")
    assert train("all", "stream.rows_per_step=18", config="all.toml") == 0
    (path,) = (folder / "all" / "sample_loss" / "rank-00000").glob("part-*.parquet")
    held_out = held_out_keys(folder / "mixes" / "run")
    rows = [row for row in pq.read_table(path).to_pylist() if row["sample_key"] in held_out]
    assert len(rows) == len(held_out)
    expected = sum(row["loss_sum"] for row in rows) / sum(row["supervised_tokens"] for row in rows)
    first = lines(folder / "whole" / "validation.jsonl")[0]
    assert first["validation/loss"] == pytest.approx(expected, rel=1e-6)
    assert first["validation/supervised_tokens"] == sum(row["supervised_tokens"] for row in rows)


def test_measuring_changes_no_step(folder: Path) -> None:
    assert train("unwatched", "validation.enable=false", "train.ckpt.enable_checkpoint=false") == 0
    for one, other in zip(*(lines(folder / run / "metrics.jsonl") for run in ("whole", "unwatched")), strict=True):
        assert one["train/loss"] == other["train/loss"]
        assert one["train/grad_norm"] == other["train/grad_norm"]


@pytest.mark.slow
def test_two_ranks_measure_what_one_does(folder: Path) -> None:
    on_two_ranks(folder)


@pytest.mark.slow
def test_ranks_that_share_experts_measure_what_one_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step too, when no micro-batch has told them yet how long batches are."""
    place = prepare(tmp_path, "qwen3_vl_moe")
    monkeypatch.chdir(place)
    on_two_ranks(place, "policy.parallelism.ep_size=2")


def on_two_ranks(folder: Path, *settings: str) -> None:
    """Run on two ranks and compare with the run in one process."""
    given = ["train.output_dir=two", "policy.parallelism.dp_shard_size=2", "train.train_batch_per_replica=2", *settings]
    command = [sys.executable, "-m", "vlm_train.cli", "run", "run.toml"]
    command += [text for one in given for text in ("--set", one)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    one, two = (lines(folder / run / "validation.jsonl") for run in ("whole", "two"))
    assert two[0]["validation/loss"] == pytest.approx(one[0]["validation/loss"], rel=1e-7)
    for first, second in zip(one, two, strict=True):
        assert second["validation/loss"] == pytest.approx(first["validation/loss"], rel=1e-6)
        assert second["validation/samples"] == first["validation/samples"]
    one, two = (lines(folder / run / "validation_samples.jsonl") for run in ("whole", "two"))
    assert two[:3] == one[:3]
    assert [line["sample_id"] for line in two] == [line["sample_id"] for line in one]


def test_a_mix_that_holds_nothing_out_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "none.toml").write_text(TOML.replace(", test_size = 5", ""))
    vlm_prep("build-mix", "none.toml")
    assert train("none", config="none.toml") == 2
    assert "validation.enable: the mix" in capsys.readouterr().err
    assert not (folder / "none").exists()
