"""The progress of a stage as it is seen: in a real terminal of a given size, and without one."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from vlm_catalogs import console
from vlm_catalogs.config import load_config
from vlm_prep.build import build_mix
from vlm_prep.parts_in_work import staged_so_far
from vlm_prep.stage_counts import Made, Piece
from vlm_prep.stage_progress import StageProgress, chosen_sources

BUILD = [str(Path(sys.executable).parent / "vlm-prep"), "build-mix", "new.toml", "--num-workers", "1"]
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
REDRAWN = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
"""How a view takes back all lines that it drew before."""

MANY_SOURCES = """
import sys, time
from vlm_catalogs.console import fact
from vlm_prep.stage_counts import Made, Piece
from vlm_prep import stage_progress
from vlm_prep.stage_progress import StageProgress
stage_progress.REFRESHES_PER_SECOND = 20
pieces = [Piece(source=f"dataset_with_quite_a_long_name_{number:03}", part=part, work=10)
          for number in range(300) for part in "01"]
with StageProgress("convert", pieces, num_workers=4) as progress:
    for number, piece in enumerate(pieces[:420]):
        progress.done(piece.key, Made(samples=1000, bytes=10**7, rejected={"media_empty": 1} if number > 400 else {}))
        time.sleep(0.001)
    fact("told meanwhile")
    time.sleep(0.2)
"""


def run_in_terminal(command: list[str], *, lines: int, columns: int) -> tuple[int, str]:
    """The exit code and all that a terminal of this size was sent."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        command, stdin=follower, stdout=subprocess.DEVNULL, stderr=follower, env={**environment, "TERM": "xterm"}
    ) as run:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 1 << 16):
                shown += chunk
        except OSError:  # the other side is closed
            pass
        os.close(leader)
    return run.returncode, shown.decode()


def frames(sent: str) -> list[list[str]]:
    """The views that were drawn one over the other, each as its lines."""
    return [CONTROL.sub("", one).replace("\r", "").split("\n") for one in REDRAWN.split(sent)]


@pytest.mark.parametrize(("lines", "columns"), [(12, 140), (24, 80), (5, 80), (2, 30)])
def test_hundreds_of_sources_never_take_more_lines_than_the_terminal_has(lines: int, columns: int) -> None:
    code, sent = run_in_terminal([sys.executable, "-c", MANY_SOURCES], lines=lines, columns=columns)
    assert code == 0, sent
    views = frames(sent)
    assert len(views) > 3
    for view in views:
        drawn = [line for line in view if line and line != "told meanwhile"]
        assert len(drawn) <= max(1, lines - 2), view
        assert all(len(line) <= columns for line in view), view
    assert "told meanwhile" in CONTROL.sub("", sent)
    if lines == 12:
        last = "\n".join(views[-2])
        named = re.findall(r"_(\d{3}) .*?(\S+ parts)", last)
        assert named[:2] == [("210", "0/2 parts"), ("211", "0/2 parts")]  # those in work
        assert named[2:5] == [("209", "2/2 parts"), ("208", "2/2 parts"), ("207", "2/2 parts")]  # the last ones done
        assert re.search(rf"\+{300 - len(named)} more \({210 - len(named) + 2} done\)", last)
        assert re.search(
            r"convert .* 420/600 parts +[\d,]+ samples/s +[\d,.]+ MB/s +\S+ s left rejected 19 media_empty", last
        )


@pytest.fixture
def place(built: Path) -> Path:
    Path("a.jsonl").write_text(ROW * 20)
    Path("b.jsonl").write_text(ROW * 20 + "{\n" * 3)
    sources = "".join(f"[[mix.source]]\nname = '{name}'\npath = '{name}.jsonl'\n" for name in "ab")
    Path("new.toml").write_text(Path("mix.toml").read_text().partition("[[mix")[0] + sources)
    return built


def test_a_build_in_a_terminal_shows_its_sources_and_leaves_its_facts(place: Path) -> None:
    code, sent = run_in_terminal(BUILD, lines=30, columns=160)
    assert code == 0, sent
    lines = [line for view in frames(sent) for line in view]
    assert any(re.match(r"b +\S+ +1/1 parts .* done in \d+ s +rejected 3 unreadable_json", line) for line in lines), (
        lines
    )
    left = "\n".join(frames(sent)[-1])
    assert "samples/s" not in left
    assert "convert: 2 parts, 0 cached" in sent
    assert "measure: 2 parts, 0 cached" in sent


def test_plain_lines_say_the_stage_in_all_and_each_source_once_it_is_done() -> None:
    pieces = [Piece(source=name, part="0", work=100) for name in "abc"]
    progress = StageProgress("convert", pieces, num_workers=1)
    progress.done(("a", "0"), Made(samples=20, bytes=10, rejected={"media_empty": 3, "bad_conversation": 1}))
    first, a, b = progress.plain_lines()
    assert re.fullmatch(
        r"convert: 33%, 1/3 parts, 20 samples, [\d,]+ samples/s, [\d.,]+ MB/s, \d+ s left, "
        r"rejected 3 media_empty, 1 bad_conversation; 1/3 sources done",
        first,
    )
    assert re.fullmatch(r"  a: 100%, 1/1 parts, 20 samples, .* done in 0 s, rejected 3 media_empty, .*", a)
    assert b.startswith("  b: 0%, 0/1 parts, 0 samples, ")
    progress.done(("b", "0"), Made(samples=1))
    assert [line[:3] for line in progress.plain_lines()[1:]] == ["  b", "  c"]


def test_plain_lines_name_a_few_sources_and_count_the_rest() -> None:
    pieces = [Piece(source=f"s{number}", part="0", work=1) for number in range(100)]
    progress = StageProgress("convert", pieces, num_workers=2)
    for piece in pieces[:50]:
        progress.done(piece.key, Made(samples=1))
    lines = progress.plain_lines()
    assert len(lines) == 10
    assert lines[-1] == "  +44 more"


def test_plain_lines_come_while_a_long_part_is_in_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_PLAIN_LINES", 0.01)
    asked = threading.Event()
    ahead = {("a", "0"): Made(samples=7, share=0.25)}

    def look(_: object) -> dict[tuple[str, str], Made]:
        asked.set()
        return ahead

    with StageProgress("convert", [Piece(source="a", part="0", work=8)], num_workers=1, ahead=look):
        assert asked.wait(5)
    assert "  a: 25%, 0/1 parts, 7 samples, " in capsys.readouterr().err


def test_a_stage_without_anything_to_do_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with StageProgress("convert", [], num_workers=1):
        pass
    assert capfd.readouterr().err == ""


def test_a_stage_that_fails_leaves_no_thread_and_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with (
        pytest.raises(RuntimeError, match="disk"),
        StageProgress("convert", [Piece(source="a", part="0", work=8)], num_workers=1),
    ):
        raise RuntimeError("disk")
    assert threading.active_count() == before


def test_the_sources_shown_are_those_in_work_then_the_last_ones_done() -> None:
    assert chosen_sources(["c", "c", "d"], ["a", "b"], num_lines=3) == ["c", "d", "b"]
    assert chosen_sources(["c"], ["a", "c"], num_lines=9) == ["c", "a"]
    assert chosen_sources(["c"], ["a"], num_lines=-1) == []


def test_shards_in_staging_say_how_much_of_a_part_is_converted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in the moment before a real part is published."""
    from vlm_prep import convert

    seen = []
    real = convert.stage_part

    def look(task: convert.ConvertTask) -> Path:
        folder = real(task)
        piece = Piece(source=task.source.name, part=task.part.name, work=10**9)
        nothing = staged_so_far(task.staging, [Piece(source="other", part="0", work=1)], expansion={})
        assert list(nothing.values()) == [Made()]
        (made,) = staged_so_far(task.staging, [piece], expansion={"a": 2.0}).values()
        seen.append((made.samples, made.bytes, made.share * 2e9 if task.source.name == "a" else made.share * 1e9))
        assert made.bytes == sum(path.stat().st_size for path in folder.glob("*.mds"))
        return folder

    monkeypatch.setattr(convert, "stage_part", look)
    build_mix(load_config(Path("new.toml"), overrides=("mix.num_workers=1",)))
    assert [samples for samples, *_ in seen] == [20, 20]
    assert all(abs(size - share) < 1 for _, size, share in seen)
