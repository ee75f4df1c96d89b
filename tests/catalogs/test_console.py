"""How a command ends: its exit code, and where its words go."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_catalogs.console import Progress, fact, note, result, run_main
from vlm_catalogs.errors import ConfigError


def test_a_users_mistake_is_one_message_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise ConfigError("mix.toml:3: train.epoch: expected a whole number >= 1, got 0")

    assert run_main(command) == 2
    captured = capsys.readouterr()
    assert captured.err == "mix.toml:3: train.epoch: expected a whole number >= 1, got 0\n"
    assert captured.out == ""


def test_a_bug_is_exit_1_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise ZeroDivisionError("of ours")

    assert run_main(command) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "ZeroDivisionError: of ours" in error


def test_a_path_that_the_system_refuses_is_one_message_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = tmp_path / ("x" * 300)

    assert run_main(lambda: int(name.exists())) == 2
    assert capsys.readouterr().err == f"{name}: File name too long\n"


def test_a_file_that_should_be_there_is_a_bug_with_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(lambda: len((tmp_path / "missing").read_text())) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_exit_130_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise KeyboardInterrupt

    assert run_main(command) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 3])
def test_a_commands_own_code_is_kept(code: int) -> None:
    assert run_main(lambda: code) == code


def test_results_go_to_stdout_and_all_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    result("rows 12")
    note("no GPU here")
    fact("convert: 12 samples, 3 s")
    captured = capsys.readouterr()
    assert captured.out == "rows 12\n"
    assert captured.err == "note: no GPU here\nconvert: 12 samples, 3 s\n"


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    program = (
        "import sys\n"
        "from vlm_catalogs.console import result, run_main\n"
        "def command():\n"
        "    for number in range(200_000):\n"
        "        result(str(number))\n"
        "    return 0\n"
        "sys.exit(run_main(command))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_progress_says_how_far_it_is_with_rate_and_time_left() -> None:
    with Progress("convert", total=4000, unit="samples") as progress:
        progress.advance(1200)
        line = progress.line()
    assert line.startswith("convert: 1,200/4,000 samples, ")
    assert line.endswith(" s left")


def test_progress_without_a_total_promises_no_end() -> None:
    with Progress("scan", unit="rows") as progress:
        progress.advance(3)
        assert progress.line().startswith("scan: 3 rows, ")
        assert "left" not in progress.line()


def test_progress_off_a_terminal_stays_silent_for_a_short_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("convert", total=2) as progress:
        progress.advance(2)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_draws_a_line_and_leaves_nothing_behind() -> None:
    program = (
        "from vlm_catalogs.console import Progress\n"
        "with Progress('convert', total=2) as progress:\n"
        "    progress.advance(2)\n"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=theirs, env={**os.environ, "TERM": "xterm"}, check=True
    )
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "convert" in drawn
    assert "2/2" in drawn


def test_importing_the_console_imports_nothing_heavy() -> None:
    program = (
        "import sys, vlm_catalogs.console\n"
        "print([name for name in ('rich', 'torch', 'transformers', 'duckdb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
