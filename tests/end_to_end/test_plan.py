"""``vlm-train plan``: what it says is what the run does, and the run takes the tables that it wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.small_mixes import DEMO, model_and_mix, source, write_conversations, write_demo

from vlm_train.cli import main as train
from vlm_train.make_tiny import make_tiny
from vlm_train.start import is_only_planned

TOML = """
[train]
epoch = 2
output_dir = "{folder}/planned"
train_batch_per_replica = 4
optm_lr = 1e-3
param_dtype = "float32"

[train.train_policy]
mini_batch = 2

[train.ckpt]
export_safetensors = false

[logging]
log_interval = 1
"""
TOML += model_and_mix(160)
TOML += source("pictures", "{folder}/pictures.jsonl", media_root="{demo}", weight=3)
TOML += source("words", "{folder}/words.jsonl")
PACKED = ("--set", "train.sequence_packing=true", "--set", "train.train_batch_per_replica=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plan")
    make_tiny("qwen3_vl", place / "model")
    write_demo(place / "pictures.jsonl", demo_clipart=9)
    pairs = [(f"say {number}", "yes " * number) for number in (1, 2, 3, 500)]
    write_conversations(place / "words.jsonl", pairs)
    (place / "run.toml").write_text(TOML.format(folder=place, demo=DEMO))
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(place / "run.toml")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=place)
    return place


def plan(folder: Path, run: str, capsys: pytest.CaptureFixture[str], *settings: str) -> dict[str, Any]:
    capsys.readouterr()
    assert (
        train(["plan", str(folder / "run.toml"), "--set", f"train.output_dir={folder / run}", *settings, "--json"]) == 0
    )
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def run(folder: Path, name: str, *settings: str) -> int:
    return train(["run", str(folder / "run.toml"), "--set", f"train.output_dir={folder / name}", *settings])


def tables(folder: Path, run: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder / run)): path.read_bytes() for path in (folder / run / "epochs").rglob("*.*")}


@pytest.mark.parametrize("settings", [pytest.param((), marks=pytest.mark.slow), PACKED], ids=["single", "packed"])
def test_a_run_takes_the_written_epochs_and_is_what_was_said(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, ...]
) -> None:
    name = "packed" if settings else "single"
    said = plan(folder, name, capsys, *settings)
    written = tables(folder, name)
    assert len(written) == 4  # two epochs, each a part and its hash
    assert run(folder, name, *settings, "--set", "train.optm_lr=2e-3") == 0
    told = capsys.readouterr().err
    assert "vlm-train plan has written its epochs; starting at step 0" in told
    assert run(folder, f"{name}-alone", *settings) == 0
    assert tables(folder, name) == written == tables(folder, f"{name}-alone")
    assert "optm_lr = 0.002" in (folder / name / "config.toml").read_text()
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    assert said["steps"] == len(lines)
    for facts in said["epochs"]:
        of_it = [line for line in lines if line["epoch"] == facts["epoch"]]
        assert facts["steps"] == len(of_it)
        for dataset, drawn in facts["datasets"].items():
            for key in ("samples", "tokens"):
                assert sum(line.get(f"{key}/{dataset}", 0) for line in of_it) == drawn[key]
        tokens = [sum(line.get(f"tokens/{name}", 0) for name in facts["datasets"]) for line in of_it]
        shares = [line["train/padding_share"] for line in of_it]
        whole = sum(each / (1 - share) for each, share in zip(tokens, shares, strict=True))
        assert facts["padding_share"] == pytest.approx(1 - sum(tokens) / whole)
        assert (facts["row_fill"] is None) == (not settings)
    assert run(folder, name, *settings) == 2  # it has trained: only --resume goes on


def test_datasets_stand_beside_what_was_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = plan(folder, "not_written", capsys, "--dry-run")
    assert not (folder / "not_written").exists()
    assert said["epochs_folder"] is None
    pictures, words = said["datasets"]
    assert (pictures["asked_share"], words["asked_share"]) == (0.75, 0.25)
    assert (words["selected"], words["length_policy"]["dropped"]) == (3, 1)
    assert pictures["length_policy"] == {"dropped": 0, "shortened": 0, "tokens_before": 0, "tokens_after": 0}
    samples = sum(one["samples"] for one in said["epochs"])
    assert pictures["share_of_samples"] == pytest.approx(0.75, abs=1 / samples)
    assert words["repeats_per_epoch"] == pytest.approx(words["drawn"]["samples"] / 2 / 3)
    whole = sum(path.stat().st_size for path in (folder / "shards").rglob("*.mds"))
    for one in said["epochs"]:
        assert one["working_set_bytes"] == one["bytes_per_node"] == whole
        assert one["shards_per_100_steps"] == 2


def test_the_length_policy_is_told_by_dataset(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = ("--set", "mix.length_policy=cut_text", "--set", "mix.name=cut")
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(folder / "run.toml"), *cut]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=folder)
    words = plan(folder, "cut", capsys, *cut, "--dry-run")["datasets"][1]
    assert words["length_policy"]["shortened"] == 1
    assert words["length_policy"]["dropped"] == 0
    assert words["length_policy"]["tokens_before"] > 500 > 160 >= words["length_policy"]["tokens_after"]


def test_people_read_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(["plan", str(folder / "run.toml"), "--dry-run", "--set", "train.epoch=40"]) == 0
    said = capsys.readouterr().out
    assert "rows: 4 a step, 4 for each of 1 ranks on 1 nodes, 2 to a micro-batch" in said
    assert "steps: 120 in 40 epochs" in said
    assert "asked (samples)" in said and "75.000%" in said
    assert "and 31 more epochs; --json has them all" in said


def test_rows_of_the_plan_hold_for_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planned for two ranks, run by one: as many rows a step, as for a run that other ranks go on with."""
    said = plan(folder, "two_ranks", capsys, "--ranks", "2", "--nodes", "2")
    assert (said["rows_per_step"], said["rows_per_rank"]) == (8, 4)
    written = tables(folder, "two_ranks")
    assert run(folder, "two_ranks") == 0
    assert tables(folder, "two_ranks") == written
    assert "8 rows a step, 8 for each of 1 ranks" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            ("--set", "train.train_policy.dataloader_seed=5"),
            "train.train_policy.dataloader_seed: it was 0, now it is 5",
        ),
        (PACKED[:2], "train.sequence_packing: it was False, now it is True"),
        (("--set", "train.train_batch_per_replica=6"), "rows per step: it was 4, now it is 6"),
    ],
)
def test_a_run_of_other_settings_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, ...], named: str
) -> None:
    if not (folder / "planned").exists():
        plan(folder, "planned", capsys)
    before = tables(folder, "planned")
    for command in ("plan", "run"):
        capsys.readouterr()
        assert train([command, str(folder / "run.toml"), *settings]) == 2
        said = capsys.readouterr().err
        assert named in said and "nothing has trained on them" in said
    assert tables(folder, "planned") == before


def test_numbers_that_do_not_divide_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", str(folder / "run.toml"), "--dry-run", "--ranks", "3"]
    assert train([*command, "--nodes", "2"]) == 2
    assert "--nodes 2: 3 ranks do not divide by it" in capsys.readouterr().err
    assert train([*command, "--set", "stream.rows_per_step=4"]) == 2
    assert "4 rows a step do not divide by 3 ranks; 1, 2, 4 ranks would do" in capsys.readouterr().err


def test_a_plan_that_began_beside_a_run_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.json").write_text('{"planned": true, "fingerprint": {}}')
    assert is_only_planned(tmp_path)
    (tmp_path / "metrics.jsonl").touch()
    assert not is_only_planned(tmp_path)
