"""Disks of their own for tests."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, file_system: str, *options: str) -> Iterator[Path]:
    """A new folder with a file system of its own; skips the test where the user may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", file_system, *[f"-o{option}" for option in options], file_system, folder]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
