"""Temporary files of killed processes go; those of living ones, and what is no temporary file of ours, stay."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vlm_catalogs.leftovers import STALE_SECONDS, remove_leftovers, temporary_name

WORK = """
import sys
from pathlib import Path
from vlm_catalogs.leftovers import temporary_name
folder = Path(sys.argv[1]) / temporary_name("verify")
folder.mkdir()
(folder / "shard.mds").write_bytes(b"large")
(Path(sys.argv[1]) / temporary_name("part")).write_bytes(b"half")
print("made", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    living = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for process in (killed, living):
        assert process.stdout and process.stdout.readline() == b"made\n"
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    ours, elsewhere = tmp_path / temporary_name("fetched"), f"-{'0' * 8}-1-{'a' * 12}"
    others = {"bucket", ".lock", ".part-notes", f".part{elsewhere}"}
    for path in (ours, *(tmp_path / name for name in others), old := tmp_path / f".fetched{elsewhere}"):
        path.write_bytes(b"x")
    os.utime(old, (0, time.time() - STALE_SECONDS - 60))
    remove_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - others - {ours.name}
    assert len(left) == 2 and all(f"-{living.pid}-" in name for name in left)
    living.communicate()
