"""Packages of the peers that benchmarks measure against: not in the lock, put into the benchmarks' cache when asked."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark_set import cache_folder


def peer_folder(packages: Sequence[str]) -> Path | None:
    """A folder for ``sys.path`` with ``packages`` (pinned, the first names the folder); None where pip fails."""
    folder = cache_folder() / packages[0]
    if not folder.exists() and subprocess.run(_install(folder, packages), capture_output=True, check=False).returncode:
        shutil.rmtree(folder, ignore_errors=True)
    return folder if folder.exists() else None


def _install(folder: Path, packages: Sequence[str]) -> list[str]:
    """pip where the environment has it, else uv; both leave out what a package asks for: the lock has it."""
    what = ["install", "-q", "--no-deps", "--target", str(folder), *packages]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", *what]
    if shutil.which("uv"):
        return ["uv", "pip", *what, "--python", sys.executable]
    return ["pip", "--python", sys.executable, *what]
