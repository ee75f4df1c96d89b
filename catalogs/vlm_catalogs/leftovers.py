"""Temporary files that name the process they are of: what a killed one left can be told from what is in work."""

import os
import re
import shutil
import socket
import time
import uuid
from pathlib import Path

from vlm_catalogs.hashing import content_hash

STALE_SECONDS = 24 * 3600
"""What another host has not touched for so long is taken for left behind."""
NAME = re.compile(r"\.[a-z]+-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{12}")


def temporary_name(kind: str) -> str:
    """A name that no other file has, and that says which process made it. ``kind``: small letters."""
    return f".{kind}-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def remove_leftovers(folder: Path) -> None:
    """Remove what bears a ``temporary_name`` right in ``folder`` and whose process is dead; of another host, a day old.

    What cannot be removed stays: it is no harm but the room that it takes.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        found = NAME.fullmatch(path.name)
        if found is None or not _is_left(path, found["host"], int(found["pid"])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _unlink(path)


def is_alive(pid: int) -> bool:
    """Is there a process of this number on this host?"""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def started_at(pid: int) -> int | None:
    """When the process of this number began, in ticks since the system did; None where that cannot be known.

    Numbers come again (after 32,768 processes on many systems), so a number alone does not say who is alive.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return int(stat.rpartition(")")[2].split()[19])  # proc(5): field 22, starttime; the name before may hold blanks


def _is_left(path: Path, host: str, pid: int) -> bool:
    if host == _host():
        return not is_alive(pid)
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False  # gone already


def _host() -> str:
    return content_hash(socket.gethostname().encode())[:8]


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
