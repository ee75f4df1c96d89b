"""A rank that stands still ends the run, which names it and what it was doing; real processes, gloo, real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.end_to_end.test_torchrun import descendants
from tests.end_to_end.test_train_ranks import TWO, Place, build

LIMIT = "train.stuck_after_seconds=12"
STUCK_EXIT = 75
AT_THE_NINTH = """
import os, sys, time, ctypes
from vlm_train.stream import RowEncoder
encode, calls = RowEncoder.encode, []
def encode_or_hang(self, row):
    calls.append(row)
    if os.environ["RANK"] == "1" and len(calls) == 9:
        {hang}
    return encode(self, row)
RowEncoder.encode = encode_or_hang
from vlm_train.cli import main
sys.exit(main({arguments}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return build(tmp_path_factory.mktemp("stuck"), "qwen3_vl", steps=400)


def start_hanging(place: Place, name: str, hang: str) -> "subprocess.Popen[str]":
    """Two ranks, the second of which hangs in its ninth row."""
    arguments = ["run", str(place.folder / "small.toml")]
    settings = (*TWO, LIMIT, f"train.output_dir={place.folder / name}", "train.ckpt.enable_checkpoint=false")
    arguments += [text for one in settings for text in ("--set", one)]
    program = AT_THE_NINTH.format(hang=hang, arguments=arguments)
    launcher = f"import sys; from vlm_train.local_ranks import run_locally; sys.exit(run_locally([sys.executable, '-c', {program!r}], num_processes=2))"  # noqa: E501
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", launcher], stderr=subprocess.PIPE, text=True, env=environment, process_group=0
    )


def said_at_the_end(process: "subprocess.Popen[str]") -> str:
    try:
        _, said = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == STUCK_EXIT, said
    return said


@pytest.mark.slow
def test_a_stopped_rank_is_named_by_the_other(place: Place) -> None:
    process = place.start("stopped", *TWO, LIMIT, "train.ckpt.enable_checkpoint=false")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3/"):
            break
    [second] = [pid for pid in descendants(process.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(second, signal.SIGSTOP)
    began = time.monotonic()
    said = said_at_the_end(process)
    assert time.monotonic() - began < 100
    assert re.search(rf"rank 1 \(pid {second} on .*\) is not heard of any more; its last word: ", said)
    assert "rank 0 has been at one thing for 1" in said
    assert "train.stuck_after_seconds = 12" in said
    assert "all_reduce" in said  # the stack of the rank that waits
    assert "thread MainThread:" in (place.folder / "stopped" / "ranks" / "rank-00000.stacks.txt").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)  # nothing is left behind


@pytest.mark.slow
def test_a_rank_that_sleeps_while_it_reads_is_named_with_its_stack(place: Place) -> None:
    said = said_at_the_end(start_hanging(place, "sleeping", "time.sleep(600)"))
    assert re.search(r"rank 1 \(pid \d+ on .*\) is behind: waiting for the rows of the next step", said)
    assert "time.sleep(600)" in said or "encode_or_hang" in said
    assert "encode_or_hang" in (place.folder / "sleeping" / "ranks" / "rank-00001.stacks.txt").read_text()


@pytest.mark.slow
def test_a_rank_held_in_foreign_code_is_named_and_its_stack_written(place: Place) -> None:
    """PyDLL keeps the interpreter: no Python thread of that process gets a turn any more."""
    said = said_at_the_end(start_hanging(place, "held", "ctypes.PyDLL(None).sleep(600)"))
    assert re.search(r"rank 1 \(pid \d+ on .*\) is not heard of any more", said)
    assert "encode_or_hang" in (place.folder / "held" / "ranks" / "rank-00001.stacks.txt").read_text()


@pytest.mark.slow
def test_a_run_that_goes_on_is_left_alone_and_leaves_no_files(place: Place) -> None:
    place.run(
        "fine", *TWO, "train.stuck_after_seconds=60", "train.max_num_steps=4", "train.ckpt.enable_checkpoint=false"
    )
    assert list((place.folder / "fine" / "ranks").iterdir()) == []
