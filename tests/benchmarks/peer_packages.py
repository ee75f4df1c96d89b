"""Packages of the peers that benchmarks measure against: not in the lock, put into the benchmarks' cache when asked."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark_set import cache_folder


def peer_folder(packages: Sequence[str]) -> Path:
    """A folder for ``sys.path`` with ``packages`` (pinned, the first names the folder). Exits where none can be had:
    a benchmark without its peer says nothing."""
    folder = cache_folder() / packages[0]
    if not folder.exists():
        staged = folder.with_name(f".{folder.name}.staged")  # what pip was stopped in must not look whole
        shutil.rmtree(staged, ignore_errors=True)
        command = [*_installer(), "install", "-q", "--no-deps", "--target", str(staged), *packages]
        if subprocess.run(command, check=False).returncode:
            sys.exit(
                f"bench: {packages[0]} cannot be had, so there is nothing to compare with. Tried: {' '.join(command)}\n"
                f"Where this machine reaches no package index, run the same on one that does and copy it to {folder}"
            )
        staged.rename(folder)
    return folder


def _installer() -> list[str]:
    """pip where the environment has it, else uv, else the pip of an environment made for this in the cache.

    None of them gets what a package asks for: the lock has it.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if shutil.which("uv"):
        return ["uv", "pip", "--python", sys.executable]
    environment = cache_folder() / f"pip-{sys.version_info.major}.{sys.version_info.minor}"
    python = environment / "bin" / "python"
    if not python.exists():
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=False)
        if made.returncode:
            sys.exit(
                "bench: the packages of peers need pip or uv, and `python -m venv` cannot make an environment with pip "
                "here: install uv, or Python's ensurepip (Debian: python3-venv)"
            )
    return [str(python), "-m", "pip"]
