"""What exists under its own name is whole, and nothing of anybody else is touched."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_catalogs.errors import DataError
from vlm_catalogs.leftovers import started_at
from vlm_prep.staging import publish_folder, publish_text, staging_folder


def stage(root: Path, text: str) -> Path:
    folder = root / f"staged-{text}"
    folder.mkdir()
    (folder / "part.json").write_text(text)
    return folder


def test_a_folder_appears_whole_and_a_second_one_of_the_same_content_is_dropped(tmp_path: Path) -> None:
    target = tmp_path / "parts" / "p"
    assert publish_folder(stage(tmp_path, "same"), target, marker="part.json")
    assert not publish_folder(stage(tmp_path, "same"), target, marker="part.json")
    assert (target / "part.json").read_text() == "same"
    assert not (tmp_path / "staged-same").exists()


def test_another_content_under_the_same_name_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "parts" / "p"
    publish_folder(stage(tmp_path, "first"), target, marker="part.json")
    with pytest.raises(DataError, match="something else"):
        publish_folder(stage(tmp_path, "second"), target, marker="part.json")
    assert (target / "part.json").read_text() == "first"


def test_staging_of_a_dead_process_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    owners = {
        "dead": (int(process.stdout), socket.gethostname()),
        "alive": (os.getpid(), socket.gethostname()),
        "elsewhere": (int(process.stdout), "another-host"),
    }
    for name, (pid, host) in owners.items():
        (tmp_path / ".staging" / name).mkdir(parents=True)
        (tmp_path / ".staging" / name / "owner.json").write_text(json.dumps({"pid": pid, "host": host}))
    with staging_folder(tmp_path) as ours:
        assert sorted(path.name for path in ours.parent.iterdir()) == sorted(["alive", "elsewhere", ours.name])
    assert not ours.exists()


@pytest.mark.skipif(started_at(os.getpid()) is None, reason="this system does not say when a process began")
def test_a_process_that_has_the_number_of_a_dead_one_does_not_keep_its_staging(tmp_path: Path) -> None:
    started = started_at(os.getpid())
    assert started is not None
    for name, began in {"ours": started, "dead": started - 1}.items():
        (tmp_path / ".staging" / name).mkdir(parents=True)
        owner = {"pid": os.getpid(), "started": began, "host": socket.gethostname()}
        (tmp_path / ".staging" / name / "owner.json").write_text(json.dumps(owner))
    with staging_folder(tmp_path) as folder:
        assert {path.name for path in folder.parent.iterdir()} == {"ours", folder.name}
        assert json.loads((folder / "owner.json").read_text())["started"] == started


def test_a_file_that_says_this_already_is_not_written_again(tmp_path: Path) -> None:
    target = tmp_path / "current.json"
    publish_text("a", target, staging=tmp_path)
    before = target.stat().st_ino
    publish_text("a", target, staging=tmp_path)
    assert target.stat().st_ino == before
    publish_text("b", target, staging=tmp_path)
    assert target.read_text() == "b"


def test_a_file_that_is_no_text_any_more_is_written_anew(tmp_path: Path) -> None:
    target = tmp_path / "current.json"
    target.write_bytes(b"\xff\xfe\x80")
    publish_text("whole", target, staging=tmp_path)
    assert target.read_text() == "whole"
