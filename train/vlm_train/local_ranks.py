"""A run on all GPUs of one machine without a launcher: one process each, ended together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_catalogs.errors import ConfigError
from vlm_train.ranks import parallelism_of, ranks_of
from vlm_train.stop_request import SIGNALS

SECONDS_TO_SAY = 3.0
"""What the other ranks get to end unasked once one has failed: whoever lost a peer may be gone before the peer is."""
SECONDS_TO_END = 20.0
"""What they get to end once they were asked."""
BUG = 1
SECONDS_BETWEEN_LOOKS = 0.05


def local_processes(config: Config, environment: Mapping[str, str] = os.environ) -> int:
    """How many processes this command starts: 1 where a launcher has started it, or where one is enough.

    Raises ConfigError when the TOML asks for more GPUs than there are.
    """
    if "WORLD_SIZE" in environment:
        return 1
    import torch

    replicate, shard = parallelism_of(config)
    num_gpus = torch.cuda.device_count()
    if shard == -1:
        shard = max(1, num_gpus // replicate)
    if 0 < num_gpus < replicate * shard:
        raise ConfigError(
            f"policy.parallelism: {replicate} x {shard} ranks, but this machine has {num_gpus} GPUs; start the same "
            "command on several machines with torchrun or Slurm (configs/launch/)"
        )
    return replicate * shard


def ranks_to_start(config: Config, environment: Mapping[str, str] = os.environ) -> int:
    """How many ranks a run here has. Raises as ``local_processes``."""
    return ranks_of(config, environment).size if "WORLD_SIZE" in environment else local_processes(config, environment)


def refuse_sizes(config: Config, *, num_processes: int, resume: bool) -> None:
    """Raise ConfigError, once and before any process starts, for sizes that every one of them would refuse."""
    from vlm_train.run_plan import order_settings
    from vlm_train.start import rows_of_run

    ranks = ranks_of(config, {"WORLD_SIZE": str(num_processes)})
    order_settings(
        config, num_ranks=ranks.size, known_rows=rows_of_run(config, resume=resume or bool(config.train.resume))
    )


def run_locally(command: Sequence[str], *, num_processes: int) -> int:
    """Run ``command`` as ``num_processes`` ranks; the exit code that says most of why it failed, else 0.

    A signal to end goes to all of them, and each may take its time, for copies of a checkpoint say. When one fails, the
    others are asked to end, then killed.
    """
    settings = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    fact(f"starting {num_processes} processes on this machine")
    ranks = [
        subprocess.Popen(command, env={**os.environ, **settings, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(num_processes)
    ]
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stopped = {128 + signal.SIGTERM, 128 + signal.SIGUSR1}  # all ranks agree to such a wish before any leaves

    def tell(got: int, _frame: object) -> None:
        if got == signal.SIGINT and 128 + got not in stopped:
            stopped.add(128 + got)
        elif got == signal.SIGINT:
            stopped.clear()  # whoever asks twice wants no waiting
        # A terminal sends Ctrl-C to the ranks as well; a second one from here would end them at once.
        _tell(ranks, signal.SIGTERM if got == signal.SIGINT else got)

    try:
        for number in before:
            signal.signal(number, tell)
        return _wait(ranks, stopped)
    finally:
        for one in ranks:
            if one.poll() is None:
                one.kill()
                one.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def this_command(arguments: Sequence[str]) -> list[str]:
    """How another process runs ``vlm-train`` with ``arguments``."""
    return [sys.executable, "-m", "vlm_train.cli", *arguments]


def _wait(ranks: Sequence["subprocess.Popen[bytes]"], stopped: Collection[int]) -> int:
    """The exit code of all; ``stopped`` are those of ranks that end as they were asked to."""
    while True:
        codes = [one.poll() for one in ranks]
        if any(code and code not in stopped for code in codes):
            _wait_for(ranks, SECONDS_TO_SAY)
            code = telling_code([one.poll() for one in ranks])
            _end(ranks)
            return code
        if None not in codes:
            return telling_code(codes)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def telling_code(codes: Sequence[int | None]) -> int:
    """Of the exit codes of ranks, None where one is not over yet: the first that is no bug's, else a bug's, else 0.

    A rank that loses another in a collective call ends as a bug would; the other one knows what happened.
    """
    failed = [code if code > 0 else 128 - code for code in codes if code]
    return next((code for code in failed if code != BUG), BUG if failed else 0)


def _end(ranks: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ask, wait, kill. A rank in a collective call waits for one that has gone, and does not hear."""
    _tell(ranks, signal.SIGTERM)
    _wait_for(ranks, SECONDS_TO_END)
    _tell(ranks, signal.SIGKILL)


def _wait_for(ranks: Sequence["subprocess.Popen[bytes]"], seconds: float) -> None:
    """Until all have ended, no longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(one.poll() is None for one in ranks):
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _tell(ranks: Sequence["subprocess.Popen[bytes]"], number: int) -> None:
    for one in ranks:
        if one.poll() is None:
            one.send_signal(number)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
