"""Ranks of one machine end together, with the exit code of the one that knows why; real processes."""

import signal
import subprocess
import sys

import pytest

from vlm_train.local_ranks import run_locally

LOSES_ITS_PEER = """
import os, sys, time
time.sleep(0 if os.environ["RANK"] == "0" else 0.6)
sys.exit(1 if os.environ["RANK"] == "0" else {code})
"""
COPIES_AFTER_A_STOP = """
import os, signal, sys, time
stopped = []
signal.signal({number}, lambda *_: stopped.append(1))
os.write(1, b"ready\\n")
while not stopped:
    time.sleep(0.02)
signal.signal({number}, signal.SIG_DFL)
if os.environ["RANK"] == "0":
    time.sleep(1)
    os.write(1, b"copied\\n")
sys.exit(128 + {number})
"""
LAUNCHER = "import sys; from vlm_train.local_ranks import run_locally; sys.exit(run_locally([sys.executable, '-c', {program!r}], num_processes=2))"  # noqa: E501


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (3, 3), (0, 1), (1, 1)])
def test_who_lost_a_rank_does_not_hide_why_that_one_ended(code: int, expected: int) -> None:
    assert run_locally([sys.executable, "-c", LOSES_ITS_PEER.format(code=code)], num_processes=2) == expected


def test_a_rank_that_was_killed_is_told_by_its_signal() -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL if os.environ['RANK'] == '1' else signal.SIGCONT)"
    assert run_locally([sys.executable, "-c", program], num_processes=2) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_waits_for_the_copies_of_its_first_rank(number: signal.Signals) -> None:
    launcher = LAUNCHER.format(program=COPIES_AFTER_A_STOP.format(number=int(number)))
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert (said, process.returncode) == ("copied\n", 128 + number)
