"""Runs that are killed at chosen moments of a save, from one process that has imported everything.

``python -m tests.killed_saves SEED NUMBER RANKS`` runs in a folder with run.toml, whose output_dir is not there yet:
prints a JSON line for each moment. A moment is a file that is opened, or renamed, in checkpoints/ of the run: the rank
kills itself, by SIGKILL, just before it. The other ranks are killed as well, at once or after they have noticed.
"""

import json
import math
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import vlm_train.run  # noqa: F401 imported before the forks
from vlm_catalogs.errors import UserError
from vlm_train.checkpoint import complete_checkpoints, read_state
from vlm_train.cli import main

RUN = Path("run")
SECONDS_TO_NOTICE = 5.0
Act = Callable[[int], None]


def watch(act: Act) -> None:
    """From now on, ``act`` on the number of every moment of this process."""
    seen = iter(range(10**6))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.mkdir") and "checkpoints" in str(arguments[0]):
            act(next(seen))

    sys.addaudithook(hook)


def forked(acts: Mapping[int, Act], *settings: str, num_ranks: int, together: bool = True) -> list[int]:
    """The exit codes of a run's ranks, each with what it does on its moments; negative: killed by that signal.

    Once one is killed the others are, ``together`` with it or when they have had time to notice.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {"WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if num_ranks > 1 else {}
    ranks = [started(rank, acts.get(rank, lambda _now: None), shared, settings) for rank in range(num_ranks)]
    codes: dict[int, int] = {}
    deadline = math.inf
    while len(codes) < num_ranks:
        for pid in (one for one in ranks if one not in codes):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
                if codes[pid] != 0:
                    deadline = min(deadline, time.monotonic() + (0 if together else SECONDS_TO_NOTICE))
        time.sleep(0.01)
    return [codes[pid] for pid in ranks]


def started(rank: int, act: Act, shared: Mapping[str, str], settings: Sequence[str]) -> int:
    """The process id of a rank."""
    child = os.fork()
    if child == 0:
        quiet = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ.update({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if shared else {})
        watch(act)
        os._exit(main(["run", "run.toml", "--set", f"train.output_dir={RUN}", *settings]))
    return child


def kill_at(moment: int) -> Act:
    def act(now: int) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def count_into(path: Path) -> Act:
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


def try_moments(seed: int, number: int, num_ranks: int) -> None:
    torch.set_num_threads(1)
    counted = [Path(f"moments-{rank}") for rank in range(num_ranks)]
    counting = {rank: count_into(path) for rank, path in enumerate(counted)}
    assert set(forked(counting, num_ranks=num_ranks)) == {0}
    whole = losses()
    draw = random.Random(seed)
    for rank, path in enumerate(counted):
        num_moments = int(path.read_text())
        for moment in sorted(draw.sample(range(num_moments), min(number, num_moments))):
            shutil.rmtree(RUN)
            together = draw.random() < 0.5
            codes = forked({rank: kill_at(moment)}, num_ranks=num_ranks, together=together)
            try:
                found: Any = steps_found()
            except UserError as error:
                found = str(error)
            again = forked({}, "--resume", num_ranks=num_ranks)
            line = {"rank": rank, "moment": moment, "of": num_moments, "together": together, "killed": codes[rank]}
            line |= {"found": found, "resumed": again, "same": losses() == whole, "ends_with": steps_found()}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    try_moments(*map(int, sys.argv[1:]))
