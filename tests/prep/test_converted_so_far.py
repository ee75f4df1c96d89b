"""The line of progress of a conversion, on a terminal and off it."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_catalogs import console
from vlm_catalogs.config import load_config
from vlm_prep.build import build_mix

BUILD = [str(Path(sys.executable).parent / "vlm-prep"), "build-mix", "new.toml", "--num-workers", "1"]
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def place(built: Path) -> Path:
    Path("a.jsonl").write_text(ROW * 20)
    Path("b.jsonl").write_text(ROW * 20 + "{\n" * 3)
    sources = "".join(f"[[mix.source]]\nname = '{name}'\npath = '{name}.jsonl'\n" for name in "ab")
    Path("new.toml").write_text(Path("mix.toml").read_text().partition("[[mix")[0] + sources)
    return built


def test_plain_lines_say_samples_a_second_and_rejections_by_source(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0.0)
    build_mix(load_config(Path("new.toml"), overrides=("mix.num_workers=1",)))
    first, second = (line for line in capsys.readouterr().err.splitlines() if "samples/s" in line)
    assert first.endswith("samples/s, a 1/1 parts, 1/2 sources done")
    assert second.endswith("samples/s, b 1/1 parts, 2/2 sources done, rejected 3 unreadable_json")


def test_at_a_terminal_the_line_updates_and_facts_stay(place: Path) -> None:
    leader, follower = pty.openpty()
    run = subprocess.Popen(BUILD, stdout=subprocess.DEVNULL, stderr=follower, env={**os.environ, "COLUMNS": "160"})
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 1 << 16):
            shown += chunk
    except OSError:  # the other side is closed
        pass
    os.close(leader)
    assert run.wait() == 0, shown.decode()
    text = shown.decode()
    assert "rejected 3 unreadable_json" in text
    assert "convert: 2 parts, 0 cached" in text
