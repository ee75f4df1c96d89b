"""Under torchrun on gloo: runs that are killed go on to the bit, with as many ranks or others, sample by sample."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.end_to_end.test_train_ranks import Place, build

from vlm_train.make_tiny import FAMILIES

CLI = ("-m", "vlm_train.cli")
NUM_STEPS = 20
STEPS_PER_EPOCH = 6
SETTINGS = (
    "train.train_batch_per_replica=1",
    "train.ckpt.save_freq=2",
    "train.ckpt.save_mode=sync",
    "train.ckpt.export_safetensors=false",
)
"""Two rows a step on two ranks; 12 samples make six steps an epoch. Whoever is killed after step 3 has a checkpoint."""
HELD_SAVE = """
import os, sys, time
import vlm_train.checkpoint as checkpoint
write = checkpoint.write_synced
def hold(path, content):
    if path.parent.name == "step-8.tmp":
        (path.parent / "held").touch()
        time.sleep(3600)
    write(path, content)
checkpoint.write_synced = hold
from vlm_train.cli import main
sys.exit(main())
"""
"""The save of step 8 stays under way: its tensors are written, what makes it a checkpoint never is."""
Ledger = dict[tuple[int, int, int, int], tuple[str, str, float, int]]


@dataclass(frozen=True)
class Torchrun:
    """Runs of one mix and model under torchrun."""

    place: Place

    def start(
        self, run: str, *settings: str, ranks: int = 2, resume: bool = False, program: Sequence[str] = CLI
    ) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(ranks)]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), *program, "run"]
        command += [str(self.place.folder / "small.toml"), "--set", f"train.output_dir={self.place.folder / run}"]
        command += [text for one in (*SETTINGS, *settings) for text in ("--set", one)] + ["--resume"] * resume
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, process_group=0
        )

    def run(self, run: str, *settings: str, ranks: int = 2, resume: bool = False) -> str:
        process = self.start(run, *settings, ranks=ranks, resume=resume)
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said
        return said

    def kill_after(self, run: str, step: int, *settings: str, program: Sequence[str] = CLI) -> None:
        """SIGKILL torchrun and every process below it once it has told of ``step``."""
        process = self.start(run, *settings, program=program)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"step {step}/"):
                break
        else:
            raise AssertionError(f"the run ended before step {step}")
        for pid in [process.pid, *descendants(process.pid)]:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL

    def numbers(self, run: str) -> list[tuple[int, float, float]]:
        """Step, loss and gradient norm of the last attempt at each step."""
        lines = sorted(self.place.metrics(run), key=lambda line: line["step"])
        return [(line["step"], line["train/loss"], line["train/grad_norm"]) for line in lines]

    def ledger(self, run: str) -> Ledger:
        """(epoch, step, row, position) -> sample, its loss and supervised tokens, of the last attempt at each step."""
        found: dict[tuple[int, int, int, int], tuple[int, tuple[str, str, float, int]]] = {}
        for path in (self.place.folder / run / "sample_loss").glob("rank-*/part-*.parquet"):
            for line in pq.read_table(path).to_pylist():
                key = (line["epoch"], line["step"], line["row"], line["position"])
                value = (line["dataset"], line["sample_id"], line["loss_sum"], line["supervised_tokens"])
                if line["attempt"] > found.get(key, (0, value))[0]:
                    found[key] = (line["attempt"], value)
        return {key: value for key, (_, value) in found.items()}

    def tables(self, run: str) -> list[dict[str, Any]]:
        paths = sorted((self.place.folder / run / "epochs").glob("*/*.parquet"))
        return [line for path in paths for line in pq.read_table(path).to_pylist()]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def descendants(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


@pytest.fixture(scope="module", params=[FAMILIES[0], FAMILIES[2]])
def torchrun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Torchrun:
    """A mix with a tiny model, and a run of 20 steps over it on two ranks that nobody stopped."""
    made = Torchrun(build(tmp_path_factory.mktemp("torchrun"), request.param, steps=NUM_STEPS))
    made.run("whole")
    assert [step for step, *_ in made.numbers("whole")] == list(range(1, NUM_STEPS + 1))
    return made


def drawn(first: int, last: int) -> int:
    seed = int.from_bytes(os.urandom(4))
    step = random.Random(seed).randint(first, last)
    print(f"seed {seed}: killed after step {step}")
    return step


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_killed_run_goes_on_to_the_bit_with_any_workers(torchrun: Torchrun, epoch: int) -> None:
    run = f"killed-{epoch}"
    torchrun.kill_after(run, drawn(epoch * STEPS_PER_EPOCH + 3, epoch * STEPS_PER_EPOCH + STEPS_PER_EPOCH - 1))
    said = torchrun.run(run, "stream.num_workers=2", resume=True)
    assert "resuming from" in said
    assert torchrun.numbers(run) == torchrun.numbers("whole")
    assert torchrun.ledger(run) == torchrun.ledger("whole")
    assert torchrun.tables(run) == torchrun.tables("whole")
    planned = {
        (line["epoch"], line["step"], line["row"], line["position"]): (line["dataset"], line["sample_id"])
        for line in torchrun.tables("whole")
        if line["epoch"] * STEPS_PER_EPOCH + line["step"] < NUM_STEPS
    }
    assert {key: value[:2] for key, value in torchrun.ledger(run).items()} == planned


@pytest.mark.slow
def test_a_killed_run_goes_on_with_one_rank_and_with_two_again(torchrun: Torchrun) -> None:
    torchrun.kill_after("moved", drawn(3, 8))
    said = torchrun.run("moved", "train.max_num_steps=14", ranks=1, resume=True)
    assert "2 rows a step, 2 for each of 1 ranks" in said
    torchrun.run("moved", "stream.num_workers=1", resume=True)
    whole, moved = torchrun.ledger("whole"), torchrun.ledger("moved")
    assert moved.keys() == whole.keys()
    for key, (dataset, sample_id, loss, supervised) in whole.items():
        assert moved[key] == (dataset, sample_id, pytest.approx(loss, rel=1e-6, abs=1e-6), supervised)
    steps = [step for step, *_ in torchrun.numbers("moved")]
    losses = [loss for _, loss, _ in torchrun.numbers("moved")]
    assert steps == [step for step, *_ in torchrun.numbers("whole")]
    assert losses == pytest.approx([loss for _, loss, _ in torchrun.numbers("whole")], rel=1e-6, abs=1e-6)
    assert torchrun.tables("moved") == torchrun.tables("whole")
    attempts = {json.loads(line)["attempt"] for line in (torchrun.place.folder / "moved/metrics.jsonl").open()}
    assert attempts == {1, 2, 3}


@pytest.mark.slow
def test_a_run_killed_while_it_saves_in_the_background_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    torchrun = Torchrun(build(tmp_path, FAMILIES[0], steps=12))
    torchrun.run("whole")
    (tmp_path / "held.py").write_text(HELD_SAVE)
    in_background = ("train.ckpt.save_mode=async", "train.ckpt.save_freq=4")
    torchrun.kill_after("killed", 10, *in_background, program=[str(tmp_path / "held.py")])
    saves = tmp_path / "killed" / "checkpoints"
    assert sorted(path.name for path in saves.iterdir()) == ["step-4", "step-8.tmp"]
    half = {path.suffix or path.name for path in (saves / "step-8.tmp").iterdir()}
    assert half == {".distcp", ".metadata", "held"}  # steps 9 and 10 trained while it was under way
    said = torchrun.run("killed", *in_background, resume=True)
    assert "resuming from" in said and "step-4" in said
    assert torchrun.numbers("killed") == torchrun.numbers("whole")
    assert torchrun.ledger("killed") == torchrun.ledger("whole")
    assert sorted(path.name for path in saves.iterdir()) == ["step-12", "step-4", "step-8"]
