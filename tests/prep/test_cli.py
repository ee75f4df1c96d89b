"""The command line of ``vlm-prep``: every command explains itself at once, and shows an example that parses."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vlm_prep import cli

COMMAND = Path(sys.executable).parent / "vlm-prep"
COMMANDS = ("build-mix", "verify", "prune", "export", "peek", "sql")
HEAVY = {"pyarrow", "duckdb", "transformers", "torch", "PIL", "av", "streaming", "numpy", "xxhash", "orjson"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    shown = capsys.readouterr().out
    assert end.value.code == 0
    _, _, example = " ".join(shown.split()).partition("example: vlm-prep ")
    assert cli._parser().parse_args(shlex.split(example)).command == name


def test_the_list_of_commands_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert set(COMMANDS) <= set(shown.split())


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom vlm_prep import cli\n"
        "try:\n    cli.main(['verify', '--help'])\nexcept SystemExit:\n    pass\n"
        f"assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "x", "--num-workers", "-1"],
        ["prune", "x"],
        ["export", "x", "y"],
        ["peek", "x", "-n", "a"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    assert subprocess.run([COMMAND, *arguments], capture_output=True, check=False).returncode == 2
