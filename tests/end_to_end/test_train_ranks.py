"""Several ranks on gloo: the same run as one process, for every family, ranks of different media; kills, resumes."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.small_mixes import DEMO, model_and_mix, source, write_demo

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_train.cli import main
from vlm_train.make_tiny import FAMILIES, make_tiny
from vlm_train.ranks import ranks_of
from vlm_train.run_plan import order_settings

TOML = """
[custom]
include_video = true

[train]
max_num_steps = {steps}
epoch = 99
output_dir = "{folder}/never_used"
train_batch_per_replica = 4
optm_lr = 2e-3
optm_warmup_steps = 2
param_dtype = "float32"

[train.train_policy]
mini_batch = 1

[train.ckpt]
enable_checkpoint = true
save_freq = 3

[logging]
log_interval = 1
"""
TOML += model_and_mix(1024) + source("demo", "{folder}/data.jsonl", media_root="{demo}")
TWO = ("policy.parallelism.dp_shard_size=2", "train.train_batch_per_replica=2")


@dataclass(frozen=True)
class Place:
    """A mix of pictures, films and text with a tiny model of one family."""

    folder: Path
    steps: int

    def start(self, run: str, *settings: str, resume: bool = False) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "vlm_train.cli", "run", str(self.folder / "small.toml")]
        command += ["--set", f"train.output_dir={self.folder / run}"]
        command += [text for one in settings for text in ("--set", one)] + ["--resume"] * resume
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, process_group=0
        )

    def run(self, run: str, *settings: str, resume: bool = False) -> str:
        process = self.start(run, *settings, resume=resume)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def metrics(self, run: str) -> list[dict[str, Any]]:
        """The last attempt of each step."""
        lines = [json.loads(line) for line in (self.folder / run / "metrics.jsonl").read_text().splitlines()]
        return list({line["step"]: line for line in sorted(lines, key=lambda one: one["attempt"])}.values())

    def losses(self, run: str) -> list[float]:
        return [line["train/loss"] for line in sorted(self.metrics(run), key=lambda one: one["step"])]

    def weights(self, run: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / run / "safetensors" / f"step-{self.steps}" / "model.safetensors")


def build(folder: Path, family: str, *, steps: int) -> Place:
    make_tiny(family, folder / "model")
    write_demo(folder / "data.jsonl", demo_clipart=4, demo_photos=3, demo_video=5)
    (folder / "small.toml").write_text(TOML.format(folder=folder, demo=DEMO, steps=steps))
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(folder / "small.toml")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return Place(folder, steps)


def assert_same_run(place: Place, one: str, other: str) -> None:
    assert place.losses(other) == pytest.approx(place.losses(one), rel=1e-6, abs=1e-6)
    for key in ("train/grad_norm", "train/supervised_tokens"):
        assert [line[key] for line in place.metrics(other)] == pytest.approx(
            [line[key] for line in place.metrics(one)], rel=1e-5
        )
    first, second = place.weights(one), place.weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(second[name], value, rtol=1e-3, atol=1e-4), name


EVERY_FAMILY = [FAMILIES[0], *(pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES[1:])]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_two_ranks_train_as_one_process_does(tmp_path: Path, family: str) -> None:
    place = build(tmp_path, family, steps=6)
    place.run("alone")
    said = place.run("two", *TWO)
    assert "starting 2 processes on this machine" in said
    assert said.count("trained 6 of 6 steps") == 1
    assert_same_run(place, "alone", "two")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_two_ranks_train_packed_rows_as_one_process_does(tmp_path: Path, family: str) -> None:
    place = build(tmp_path, family, steps=4)
    packed = "train.sequence_packing=true"
    said = place.run("alone", packed, "train.train_batch_per_replica=2")
    assert "samples in one row do not see each other" in said
    place.run("two", packed, "policy.parallelism.dp_shard_size=2", "train.train_batch_per_replica=1")
    assert_same_run(place, "alone", "two")


@pytest.mark.slow
@pytest.mark.parametrize("packed", ["true", "false"])
def test_two_ranks_weigh_micro_batches_as_one_process_does(tmp_path: Path, packed: str) -> None:
    """The rows of a micro-batch are often on two ranks, and the last step of an epoch has empty ones."""
    place = build(tmp_path, "qwen3_vl", steps=4)
    by_group = ("train.train_policy.balance_dp_token=false", f"train.sequence_packing={packed}")
    by_group += ("stream.rows_per_step=8", "train.train_policy.mini_batch=2")
    place.run("alone", *by_group)
    place.run("two", "policy.parallelism.dp_shard_size=2", *by_group)
    assert_same_run(place, "alone", "two")
    if packed == "false":  # twelve samples fill the rows of one micro-batch, which weighs the same either way
        place.run("by_tokens", *by_group[1:])
        assert place.losses("by_tokens")[0] != pytest.approx(place.losses("alone")[0], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", "nemotron_h_omni"])
def test_adapters_over_two_ranks_go_on_in_one_process_and_back(tmp_path: Path, family: str) -> None:
    place = build(tmp_path, family, steps=6)
    lora = ("policy.lora.r=4", "policy.lora.target_modules='all-linear'")
    place.run("alone", *lora)
    place.run("moved", "train.max_num_steps=3", *TWO, *lora)
    place.run("moved", "train.max_num_steps=5", *lora, resume=True)
    place.run("moved", *TWO, *lora, resume=True)
    assert_same_run(place, "alone", "moved")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl_moe", "nemotron_h_omni"])
def test_a_run_with_experts_over_two_ranks_goes_on_in_one_process_and_back(tmp_path: Path, family: str) -> None:
    place = build(tmp_path, family, steps=6)
    experts = "policy.parallelism.ep_size=2"
    place.run("alone")
    place.run("moved", "train.max_num_steps=3", *TWO, experts)
    place.run("moved", "train.max_num_steps=5", resume=True)
    place.run("moved", *TWO, experts, resume=True)
    assert_same_run(place, "alone", "moved")


@pytest.mark.slow
def test_two_copies_of_the_parameters_train_as_one_process_does(tmp_path: Path) -> None:
    place = build(tmp_path, "qwen3_vl", steps=6)
    place.run("alone")
    place.run("copies", "policy.parallelism.dp_replicate_size=2", "train.train_batch_per_replica=2")
    assert_same_run(place, "alone", "copies")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES[1::2])
def test_a_killed_run_goes_on_with_as_many_ranks_or_others(tmp_path: Path, family: str) -> None:
    """The other families: test_torchrun.py, which also compares sample by sample."""
    place = build(tmp_path, family, steps=20)
    place.run("whole", *TWO)
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    kill_after(place, "killed", random.Random(seed).randint(4, 18))
    place.run("killed", *TWO, resume=True)
    assert place.losses("killed") == place.losses("whole")
    kill_after(place, "moved", 7)
    alone = ("policy.parallelism.dp_shard_size=1", "train.train_batch_per_replica=2")
    said = place.run("moved", "train.max_num_steps=13", *alone, resume=True)
    assert "4 rows a step, 4 for each of 1 ranks" in said
    place.run("moved", *TWO, resume=True)
    assert place.losses("moved") == pytest.approx(place.losses("whole"), rel=1e-6, abs=1e-6)
    for run in ("killed", "moved"):
        for table in sorted((place.folder / "whole" / "epochs").glob("*/*.parquet")):
            other = place.folder / run / table.relative_to(place.folder / "whole")
            assert other.read_bytes() == table.read_bytes()


def kill_after(place: Place, run: str, step: int) -> None:
    """SIGKILL all processes of a run once it has told of ``step``."""
    process = place.start(run, *TWO)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_wish_to_stop_at_one_rank_ends_all_after_the_same_step(tmp_path: Path) -> None:
    place = build(tmp_path, "qwen3_vl", steps=500)
    process = place.start("stopped", *TWO)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 2/"):
            process.send_signal(signal.SIGTERM)
            break
    _, said = process.communicate(timeout=600)
    assert process.returncode == 128 + signal.SIGTERM, said
    steps = [line["step"] for line in place.metrics("stopped")]
    assert (place.folder / "stopped" / "checkpoints" / f"step-{max(steps)}" / "COMPLETE").is_file()


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_others_with_its_exit_code(tmp_path: Path) -> None:
    place = build(tmp_path, "qwen3_vl", steps=6)
    for shard in (place.folder / "shards").rglob("*.mds"):
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    process = place.start("damaged", *TWO)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2, said
    assert "move" in said and "away and run vlm-prep build-mix" in " ".join(said.split())


@pytest.mark.parametrize("setting", ["policy.parallelism.tp_size=2", "stream.rows_per_step=3"])
def test_sizes_are_refused_once_before_any_process_starts(
    tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.toml").write_text(TOML.format(folder=tmp_path, demo=DEMO, steps=1))
    monkeypatch.setattr("subprocess.Popen", lambda *_given, **_settings: pytest.fail("a process was started"))
    settings = ("policy.model_name_or_path=Qwen/Qwen3-VL-2B", "policy.parallelism.dp_shard_size=2", setting)
    assert main(["run", str(tmp_path / "small.toml"), *(text for one in settings for text in ("--set", one))]) == 2
    said = capsys.readouterr().err
    assert said.count(setting.partition("=")[0]) == 1
    assert "tensor parallelism is not built" in said or "do not divide by 2 ranks" in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.train_batch_per_replica=3", "train.train_policy.mini_batch=2"], "multiple of mini_batch (2), got 3"),
        (["stream.rows_per_step=3"], "3 rows a step do not divide by 2 ranks; 1, 3 ranks would do"),
        (["stream.rows_per_step=6", "train.train_policy.mini_batch=2"], "mini_batch could be 1, 3"),
        (["policy.parallelism.dp_replicate_size=3"], "is not the number of ranks, 2; 1 x 2, 2 x 1 would be"),
    ],
)
def test_numbers_that_do_not_divide_are_refused_with_those_that_do(
    tmp_path: Path, settings: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(TOML.format(folder=tmp_path, demo=DEMO, steps=1))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError) as refusal:
        config = load_config(
            tmp_path / "small.toml", overrides=["policy.model_name_or_path=Qwen/Qwen3-VL-2B", *settings]
        )
        order_settings(config, num_ranks=ranks_of(config).size)
    assert message in " ".join(str(refusal.value).split())
