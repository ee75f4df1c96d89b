"""SIGKILL at any moment of a save leaves the checkpoint before it whole and found, and the run goes on to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.small_mixes import DEMO, write_demo

from vlm_train.make_tiny import make_tiny

ROOT = Path(__file__).parents[2]
TOML = """
[train]
max_num_steps = 3
epoch = 99
train_batch_per_replica = 1
optm_lr = 2e-3
param_dtype = "float32"

[train.train_policy]
mini_batch = 1

[train.ckpt]
enable_checkpoint = true
save_freq = 1
save_mode = "{mode}"
max_keep = {max_keep}
export_safetensors = false

[policy]
model_name_or_path = "model"
model_max_length = 512

[policy.parallelism]
dp_shard_size = {num_ranks}

[mix]
num_workers = 1

[[mix.source]]
name = "demo"
path = "data.jsonl"
media_root = "{demo}"
"""


def kill_saves(folder: Path, *, mode: str, max_keep: int, num_ranks: int, number: int) -> list[dict[str, Any]]:
    make_tiny("qwen3_vl", folder / "model")
    write_demo(folder / "data.jsonl", demo_clipart=3)
    (folder / "run.toml").write_text(TOML.format(demo=DEMO, mode=mode, max_keep=max_keep, num_ranks=num_ranks))
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    prep = [sys.executable, "-m", "vlm_prep.cli", "build-mix", "run.toml"]
    subprocess.run(prep, check=True, capture_output=True, env=environment, cwd=folder)
    command = [sys.executable, "-m", "tests.killed_saves", str(seed), str(number), str(num_ranks)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=folder, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(moments: list[dict[str, Any]], *, max_keep: int, num_ranks: int) -> None:
    assert {one["rank"] for one in moments} == set(range(num_ranks))
    last = dict.fromkeys(range(num_ranks), 0)
    for one in moments:
        assert one["killed"] == -9, one
        found = one["found"]
        assert isinstance(found, list), one  # else the error that a damaged checkpoint gave
        assert found == list(range(found[0], found[-1] + 1)) if found else True, one
        assert max([*found, 0]) >= last[one["rank"]], one  # once whole, a step is never lost by a later save
        last[one["rank"]] = max([*found, 0])
        assert (set(one["resumed"]), one["same"]) == ({0}, True), one
        # one more where the kill was before its removal
        assert one["ends_with"][-max_keep:] == [1, 2, 3][-max_keep:], one


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize(("mode", "max_keep"), [("sync", 1), ("async", 2)])
def test_sigkill_at_any_moment_of_a_save_leaves_the_checkpoint_before(
    tmp_path: Path, mode: str, max_keep: int, num_ranks: int
) -> None:
    moments = kill_saves(tmp_path, mode=mode, max_keep=max_keep, num_ranks=num_ranks, number=7 if num_ranks == 1 else 4)
    check(moments, max_keep=max_keep, num_ranks=num_ranks)
