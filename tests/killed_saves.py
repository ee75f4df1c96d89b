"""Runs that are killed at chosen moments of a save, from one process that has imported everything.

``python -m tests.killed_saves SEED NUMBER`` runs in a folder with run.toml, whose output_dir is not there yet: prints a
JSON line for each moment. A moment is a file that is opened, or renamed, in checkpoints/ of the run: the process kills
itself, by SIGKILL, just before it.
"""

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import vlm_train.run  # noqa: F401 imported before the forks
from vlm_catalogs.errors import UserError
from vlm_train.checkpoint import complete_checkpoints, read_state
from vlm_train.cli import main

RUN = Path("run")


def watch(act: Callable[[int], None]) -> None:
    """From now on, ``act`` on the number of every moment of this process."""
    seen = iter(range(10**6))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.mkdir") and "checkpoints" in str(arguments[0]):
            act(next(seen))

    sys.addaudithook(hook)


def forked(act: Callable[[int], None], *settings: str) -> int:
    """The exit code of a run of its own; negative: killed by that signal."""
    child = os.fork()
    if child == 0:
        quiet = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        watch(act)
        os._exit(main(["run", "run.toml", "--set", f"train.output_dir={RUN}", *settings]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(moment: int) -> Callable[[int], None]:
    def act(now: int) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def count_into(path: Path) -> Callable[[int], None]:
    return lambda now: path.write_text(str(now + 1)) and None


def steps_found() -> list[int]:
    """The steps of the whole checkpoints, all hashes compared."""
    return [read_state(path).step for path in complete_checkpoints(RUN)]


def losses() -> list[float]:
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    return [
        line["train/loss"]
        for line in sorted({line["step"]: line for line in lines}.values(), key=lambda one: one["step"])
    ]


def try_moments(seed: int, number: int) -> None:
    torch.set_num_threads(1)
    counted = Path("moments")
    assert forked(count_into(counted)) == 0
    whole, num_moments = losses(), int(counted.read_text())
    moments = random.Random(seed).sample(range(num_moments), min(number, num_moments))
    for moment in sorted(moments):
        shutil.rmtree(RUN)
        code = forked(kill_at(moment))
        try:
            found: Any = steps_found()
        except UserError as error:
            found = str(error)
        again = forked(lambda _now: None, "--resume")
        line = {"moment": moment, "of": num_moments, "killed": code, "found": found, "resumed": again}
        print(json.dumps({**line, "same": losses() == whole, "ends_with": steps_found()}), flush=True)


if __name__ == "__main__":
    try_moments(int(sys.argv[1]), int(sys.argv[2]))
