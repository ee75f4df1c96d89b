"""SIGKILL at any moment costs the part in flight and nothing else; builds at once in one folder do no harm."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture
def place(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with six sources of a part each, and mix.toml."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TESTS / "demo_data" / "jsonl", "jsonl")
    lines = []
    for number in range(6):
        name = ("demo_clipart", "demo_photos")[number % 2]
        text = Path(f"jsonl/{name}.jsonl").read_text().splitlines(keepends=True)
        Path(f"jsonl/s{number}.jsonl").write_text("".join(text[number : number + 8]))
        lines.append(f"[[mix.source]]\nname = 's{number}'\npath = 'jsonl/s{number}.jsonl'\n")
    head = f'[policy]\nmodel_name_or_path = "{model}"\nmodel_max_length = 1024\n'
    Path("mix.toml").write_text(head + "".join(lines))
    return tmp_path


def reports(*arguments: str) -> list[dict[str, Any]]:
    seed = str(random.randrange(1 << 30))
    print(f"seed: {seed}")
    command = [sys.executable, "-m", "tests.killed_builds", arguments[0], seed, *arguments[1:]]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])}


def check_killed(number: int) -> None:
    found = reports("killed", str(number))
    assert len(found) == number
    for one in found:
        outcome = {key: one[key] for key in ("killed", "last", "same", "staging", "unlike")}
        assert outcome == {"killed": -9, "last": 0, "same": True, "staging": [], "unlike": []}, one
        assert one["disk"] <= 1.1, one


def test_a_build_killed_at_four_moments_ends_the_same(place: Path) -> None:
    check_killed(4)


@pytest.mark.slow
def test_a_build_killed_at_twenty_moments_ends_the_same(place: Path) -> None:
    check_killed(20)


@pytest.mark.slow
def test_builds_at_once_and_one_that_is_killed_do_not_harm_each_other(place: Path) -> None:
    for one in reports("together"):
        assert one["same"], one
        assert one["codes"][:2] == [0, 0], one
        assert one["codes"][2] in (-9, 0), (
            one
        )  # what the others have built it need not build, so it may miss its moment
