"""Builds that are killed at chosen moments, from one process that has imported everything: forks cost no imports.

``python -m tests.killed_builds killed SEED NUMBER`` runs in a folder with mix.toml and prints a JSON line for each
moment. A moment is one call that the interpreter audits (opening or renaming a file): the process kills itself, by
SIGKILL, just before it.
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

import vlm_prep.build  # noqa: F401 imported before the forks
from vlm_catalogs.hashing import file_hash
from vlm_prep import compaction
from vlm_prep.cli import main

compaction.FEWEST_PARTS = 1  # else none of these sources would be compacted
PHASES = (
    "in a part", "before part.json", "between parts", "measuring", "during selection", "before the manifest",
    "compacting",
)  # fmt: skip
Moment = tuple[str, int]
"""A phase, and the number of the call in it."""


def phase_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The phase that a call belongs to; None for one that is no moment."""
    if event == "os.rename":
        return rename_phase(str(arguments[1]))
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return None
    path, mode, flags = str(arguments[0]), arguments[1], arguments[2]
    is_written = "w" in (mode or "") or bool(flags & os.O_WRONLY)
    if path.endswith(".sql"):
        return "during selection"
    if is_written and path.endswith("manifest.json"):
        return "before the manifest"
    if is_written and path.endswith("part.json"):
        return "before part.json"
    return "in a part" if (is_written and "/shard." in path) or path.endswith((".jpg", ".png", ".webp")) else None


def rename_phase(target: str) -> str:
    if "mixes" in Path(target).parts:
        return "before the manifest"
    if "compacted" in Path(target).parts:
        return "compacting"
    return "measuring" if "lengths" in Path(target).parts else "between parts"


def watch(act: Callable[[Moment], None]) -> None:
    """From now on, ``act`` on every moment of this process."""
    seen = dict.fromkeys(PHASES, 0)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and (phase := phase_of(event, arguments)) is not None:
            act((phase, seen[phase]))
            seen[phase] += 1

    sys.addaudithook(hook)


def forked(act: Callable[[Moment], None] | None = None, *, config: str = "mix.toml") -> int:
    """The process id of a build of its own."""
    child = os.fork()
    if child:
        return child
    quiet = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    if act is not None:
        watch(act)
    os._exit(main(["build-mix", config, "--num-workers", "1"]))


def ended(child: int) -> int:
    """The exit code of a child; negative: killed by that signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(moment: Moment) -> Callable[[Moment], None]:
    def act(now: Moment) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def tree() -> dict[str, str]:
    """Every file that stays, by content; clocks live only in the build log."""
    return {
        path.as_posix(): file_hash(path)
        for folder in ("shards", "mixes")
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != "build_log.jsonl"
    }


def disk_bytes() -> int:
    return sum(path.stat().st_blocks * 512 for name in ("shards", "mixes") for path in Path(name).rglob("*"))


def clear() -> None:
    for folder in ("shards", "mixes"):
        shutil.rmtree(folder, ignore_errors=True)


def moments_of_a_build() -> list[Moment]:
    """All moments of an uninterrupted build, which is left in place."""

    def write(moment: Moment) -> None:
        with Path("moments.txt").open("a") as file:
            file.write(json.dumps(moment) + "\n")

    assert ended(forked(write)) == 0, Path("said.txt").read_text()
    lines = Path("moments.txt").read_text().splitlines()
    Path("moments.txt").unlink()
    return [(phase, number) for phase, number in map(json.loads, lines)]


def draw(moments: list[Moment], *, seed: int, number: int) -> list[Moment]:
    """So many of the moments, each phase in turn."""
    draws = random.Random(seed)
    by_phase = {phase: [moment for moment in moments if moment[0] == phase] for phase in PHASES}
    assert all(by_phase.values()), {phase: len(found) for phase, found in by_phase.items()}
    order = list(PHASES)
    draws.shuffle(order)
    return [draws.choice(by_phase[order[place % len(order)]]) for place in range(number)]


def run(*, seed: int, number: int) -> None:
    """Kill a build at each moment, then let the same command end."""
    moments = moments_of_a_build()
    whole, disk = tree(), disk_bytes()
    for moment in draw(moments, seed=seed, number=number):
        clear()
        killed = ended(forked(kill_at(moment)))
        left = tree()
        last = ended(forked())
        staging = [str(path) for path in Path().rglob(".staging/*")]
        report = {"moment": moment, "killed": killed, "last": last, "same": tree() == whole, "staging": staging}
        report["unlike"] = sorted(
            path for path, content in left.items() if ".staging" not in path and whole.get(path) != content
        )
        print(json.dumps({**report, "disk": disk_bytes() / disk}), flush=True)


def run_together(*, seed: int) -> None:
    """Three builds at once in one folder, one of them of another mix, one killed; again and again from nothing."""
    moments = moments_of_a_build()
    whole = tree()
    Path("other.toml").write_text(
        Path("mix.toml").read_text().replace("model_max_length = 1024", "model_max_length = 1000")
    )
    for moment in draw(moments, seed=seed, number=2):
        clear()
        children = [forked(), forked(config="other.toml"), forked(kill_at(moment))]
        codes = [ended(child) for child in children]
        built = tree()
        same = {path: content for path, content in built.items() if path in whole} == whole
        print(json.dumps({"moment": moment, "codes": codes, "same": same}), flush=True)
        # What a killed build left in the folder of its mix goes with the next build of that mix.
        assert ended(forked(config="other.toml")) == ended(forked()) == 0
        assert not list(Path().rglob(".staging/*")), "staging is left"


if __name__ == "__main__":
    if sys.argv[1] == "killed":
        run(seed=int(sys.argv[2]), number=int(sys.argv[3]))
    else:
        run_together(seed=int(sys.argv[2]))
