"""A run over packed rows is the run over single rows: equal losses, sample by sample, and it resumes to the bit."""

import json
import os
import shutil
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.small_mixes import DEMO, model_and_mix, source, write_demo_of_any_media

from vlm_catalogs.hashing import file_hash
from vlm_catalogs.tables import EPOCH, SAMPLE_LOSS
from vlm_train.checkpoint import complete_checkpoints, step_of
from vlm_train.cli import main
from vlm_train.epoch_files import epoch_part, hash_file
from vlm_train.make_tiny import make_tiny

NUM_STEPS = 4

TOML = """
[train]
epoch = 2
max_num_steps = {steps}
output_dir = "{folder}/single"
train_batch_per_replica = 4
optm_lr = 2e-3
optm_warmup_steps = 0
param_dtype = "float32"
seed = 3

[train.train_policy]
mini_batch = 2

[train.ckpt]
enable_checkpoint = true
save_freq = 100
export_safetensors = false

[logging]
log_interval = 1

[custom]
include_video = true
"""
TOML += model_and_mix(1024) + source("demo", "{folder}/data", media_root="{demo}")


@pytest.fixture(scope="module", params=["qwen3_vl", "nemotron_h_omni"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix of pictures, films and text with a tiny model, and the folder of a run over single rows."""
    place = tmp_path_factory.mktemp("packed")
    make_tiny(request.param, place / "model")
    write_demo_of_any_media(place / "data")
    (place / "run.toml").write_text(TOML.format(folder=place, demo=DEMO, steps=NUM_STEPS))
    command = [sys.executable, "-m", "vlm_prep.cli", "build-mix", str(place / "run.toml")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=place)
    assert train(place, "single") == 0
    return place


def train(folder: Path, run: str, *settings: str) -> int:
    return main(["run", str(folder / "run.toml"), "--set", f"train.output_dir={folder / run}", *settings])


def pack(folder: Path, run: str) -> None:
    """A run that has not begun, over the rows of ``single`` packed: three samples, one, and two rows that fill up."""
    shutil.copytree(folder / "single", folder / run, ignore=shutil.ignore_patterns("step-*", "metrics*", "sample_loss"))
    for epoch in range(2):
        path = epoch_part(folder / run, epoch)
        if path.exists():
            lines = [packed(line) for line in pq.read_table(path).to_pylist()]
            lines += [empty(epoch, step, row) for step in {line["step"] for line in lines} for row in (2, 3)]
            lines = [line for line in lines if line["status"] == "planned" or line["position"] == 0]
            lines.sort(key=lambda line: (line["step"], line["row"], line["position"]))
            pq.write_table(pa.Table.from_pylist(lines, schema=EPOCH), path)
            hash_file(path).write_text(f"{file_hash(path)}\n")


def packed(line: dict[str, Any]) -> dict[str, Any]:
    row, position = ((0, line["row"]), (1, 0))[line["row"] == 3]
    return {**line, "row": row, "position": position}


def empty(epoch: int, step: int, row: int) -> dict[str, Any]:
    blank = {field.name: "" if field.type == pa.string() else 0 for field in EPOCH}
    return {**blank, "epoch": epoch, "step": step, "row": row, "status": "empty"}


def metrics(folder: Path, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]


def sample_losses(folder: Path, run: str) -> list[dict[str, Any]]:
    paths = sorted((folder / run / "sample_loss" / "rank-00000").glob("part-*.parquet"))
    tables = [pq.read_table(path) for path in paths]
    assert all(table.schema == SAMPLE_LOSS for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_packed_rows_train_as_single_rows_do(folder: Path) -> None:
    pack(folder, "packed")
    assert train(folder, "packed", "--resume") == 0
    single, together = metrics(folder, "single"), metrics(folder, "packed")
    assert len(together) == NUM_STEPS
    for one, other in zip(single, together, strict=True):
        assert other["train/loss"] == pytest.approx(one["train/loss"], abs=1e-5)
        assert other["train/grad_norm"] == pytest.approx(one["train/grad_norm"], rel=1e-4)
        for key in ("train/supervised_tokens", "tokens/demo_photos", "samples/demo_video", "tokens/demo"):
            assert other.get(key) == one.get(key)
    alone = {(row["epoch"], row["step"], row["sample_id"]): row for row in sample_losses(folder, "single")}
    losses = sample_losses(folder, "packed")
    assert len(losses) == len(alone) == sum(line["samples/demo"] for line in single)
    assert max(row["position"] for row in losses) == 2
    for row in losses:
        expected = alone[row["epoch"], row["step"], row["sample_id"]]
        assert row["loss_sum"] == pytest.approx(expected["loss_sum"], abs=1e-3)
        assert row["supervised_tokens"] == expected["supervised_tokens"]
    for line in together:
        rows = [row for row in losses if (row["epoch"], row["step"]) == (line["epoch"], line["epoch_step"])]
        mean = sum(row["loss_sum"] for row in rows) / sum(row["supervised_tokens"] for row in rows)
        assert mean == pytest.approx(line["train/loss"], rel=1e-9)


def test_a_packed_run_resumes_to_the_bit_and_says_which_attempt(folder: Path) -> None:
    for run in ("whole", "halted"):
        pack(folder, run)
    assert train(folder, "whole", "--resume") == 0
    assert train(folder, "halted", "--resume", "--set", f"train.max_num_steps={NUM_STEPS // 2}") == 0
    assert train(folder, "halted", "--resume", "--set", "stream.num_workers=2") == 0
    assert [line["train/loss"] for line in metrics(folder, "halted")] == [
        line["train/loss"] for line in metrics(folder, "whole")
    ]
    rows = sample_losses(folder, "halted")
    assert [row["attempt"] for row in rows] == sorted(row["attempt"] for row in rows)
    assert {line["attempt"] for line in metrics(folder, "halted")} == {row["attempt"] for row in rows} == {1, 2}
    assert len(rows) == len(sample_losses(folder, "whole"))


def test_a_run_plans_and_packs_its_own_rows_and_resumes_over_epochs_of_their_own_length(folder: Path) -> None:
    """Both epochs end the run, so the learning rate follows the steps of each; killed between and within epochs."""
    packing = ("--set", "train.sequence_packing=true", "--set", "train.epoch=3", "--set", "train.max_num_steps=99")
    packing += ("--set", "train.optm_decay_type='linear'", "--set", "stream.rows_per_step=2")
    packing += ("--set", "train.ckpt.save_freq_in_epoch=1", "--set", "train.ckpt.max_keep=-1")
    assert train(folder, "own", *packing) == 0
    lines = metrics(folder, "own")
    tables = [pq.read_table(epoch_part(folder / "own", epoch)).to_pylist() for epoch in range(3)]
    samples = [[line["sample_id"] for line in table if line["status"] == "planned"] for table in tables]
    assert all(sorted(one) == sorted(samples[0]) for one in samples)
    assert max(line["position"] for table in tables for line in table) > 0
    steps = [(line["epoch"], line["step"]) for table in tables for line in table]
    assert [(line["epoch"], line["epoch_step"]) for line in lines] == sorted(set(steps))
    for epoch, table in enumerate(tables):
        size = max(line["step"] for line in table) + 1
        rates = [(line["epoch_step"], line["train/lr"]) for line in lines if line["epoch"] == epoch]
        assert rates == [(step, pytest.approx(2e-3 * (1 - (epoch + step / size) / 3))) for step in range(size)]
    for run, stops in (("between", [max(line["step"] for line in tables[0]) + 1]), ("within", [1, 2, 4])):
        for stop in stops:
            settings = (*packing, "--set", f"train.max_num_steps={stop}")
            assert train(folder, run, *settings, *(("--resume",) if stop != stops[0] else ())) == 0
        assert train(folder, run, *packing, "--resume") == 0
        assert [line["step"] for line in metrics(folder, run)] == [line["step"] for line in lines]
        assert [read_part(folder, run, epoch) for epoch in range(3)] == tables
    ends = list(accumulate(max(line["step"] for line in table) + 1 for table in tables))
    assert saved_steps(folder, "own") == ends
    assert saved_steps(folder, "within") == sorted({*(stop for stop in (1, 2, 4) if stop < ends[-1]), *ends})


def saved_steps(folder: Path, run: str) -> list[int]:
    return [step_of(path) or 0 for path in complete_checkpoints(folder / run)]


def read_part(folder: Path, run: str, epoch: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = pq.read_table(epoch_part(folder / run, epoch)).to_pylist()
    return lines
