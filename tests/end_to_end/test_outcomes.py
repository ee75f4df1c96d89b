"""The outcome table: every bad input through the real command, and docs/outcomes.md as the list says it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.bad_inputs import BAD_INPUTS, LINE, TAR, BadInput, i4, jsonl, picture, showing
from tests.object_server import ObjectServer

from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_prep.cli import main
from vlm_prep.estimate import PROBED_SAMPLES

DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"
PAGE = Path(__file__).parents[2] / "docs" / "outcomes.md"


@pytest.fixture(scope="module")
def server(server: ObjectServer) -> ObjectServer:
    """With the bucket that some inputs name."""
    server.client().create_bucket(Bucket="there")
    return server


def rows_of(version: Path) -> list[dict[str, Any]]:
    """Every converted sample, with what selection says of those that were kept."""
    tables = [
        str(version / dataset.shards / "parts" / part.name / "samples.parquet")
        for dataset in read_manifest(version).datasets
        for part in dataset.parts
    ]
    query = (
        "select samples.sample_id, status, coalesce(samples.reason, chosen.reason) as reason, selected "
        "from read_parquet($tables) samples left join read_parquet($selection) chosen using (sample_key) "
        "order by sample_id"
    )
    parameters = {"tables": tables, "selection": str(version / "selection.parquet")}
    return duckdb.sql(query, params=parameters).to_arrow_table().to_pylist()


@pytest.mark.parametrize("row", BAD_INPUTS, ids=[row.what for row in BAD_INPUTS])
def test_each_bad_input_has_its_outcome(
    row: BadInput,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = row.plant()
    if "s3_credentials_path" in sources:
        server = request.getfixturevalue("server")
        server.credentials(tmp_path / "good.secret")
        server.credentials(tmp_path / "wrong.secret", secret="another")
    write_toml(model, sources)
    code = main(["build-mix", "mix.toml", "--num-workers", "1"])
    said = " ".join(capfd.readouterr().err.split())
    assert "Traceback" not in said
    assert code == (2 if row.outcome == "stopped" else 0), said
    assert not Path("stolen").exists()
    if row.outcome == "stopped":
        assert row.says in said
        assert not list(Path().glob("mixes/*/current.json"))
        assert not list(Path("shards/.staging").glob("*"))
        return
    rows = rows_of(current_mix(Path("mixes/mix")))
    assert sum(bool(one["selected"]) for one in rows) == row.kept, rows
    left_out = [(one["status"], one["reason"]) for one in rows if not one["selected"]]
    if row.outcome in ("rejected", "not selected"):
        assert left_out == [("rejected" if row.outcome == "rejected" else "kept", row.says)]
    else:
        assert not left_out
    if row.outcome != "used":
        assert row.says in said
    assert main(["verify", "mixes/mix", "--num-workers", "1"]) == 0


def write_toml(model: Path, sources: str) -> None:
    Path("mix.toml").write_text(f'[policy]\nmodel_name_or_path = "{model}"\nmodel_max_length = 1024\n{sources}')


@pytest.mark.parametrize("form", ["i4", "jsonl"])
def test_a_file_that_changes_while_it_is_converted_is_named(
    form: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_toml(model, i4() if form == "i4" else jsonl(LINE)())
    path = Path("bucket/set/texts", TAR) if form == "i4" else Path("set/a.jsonl")
    real, before = shutil.disk_usage, path.read_bytes()

    def change(folder: object) -> object:
        """Space is looked at between planning and reading: the moment for a change that keeps the size."""
        path.write_bytes(before.replace(b"What", b"That"))
        return real(folder)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", change)
        assert main(["build-mix", "mix.toml", "--num-workers", "1"]) == 2
    assert f"{path.name}: has changed since this build looked at it" in capfd.readouterr().err
    assert not list(Path("shards").rglob("part.json"))
    assert main(["build-mix", "mix.toml", "--num-workers", "1"]) == 0


SCRIPT = """
import resource, signal, sys
from vlm_prep.cli import main
import vlm_prep.build
limit = int(sys.argv[1])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(["build-mix", "mix.toml", "--num-workers", "1"]))
"""


@pytest.mark.parametrize("how", ["tmpfs", "file limit"])
def test_a_full_disk_is_a_clear_error_and_the_build_goes_on_when_there_is_room(
    how: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The drawings (a small source) fit; what follows does not, and no estimate knows its large last row."""
    monkeypatch.chdir(tmp_path)
    Path("disk").mkdir()
    if how == "tmpfs":
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "disk"], check=False)
        if mounted.returncode:
            pytest.skip("mounting needs root; the same test with a limit on file sizes runs everywhere")
        request.addfinalizer(lambda: subprocess.run(["umount", str(tmp_path / "disk")], check=True))
    toml = showing("0.bmp", picture(size=(1000, 1000), image_format="BMP"))()
    Path("set/a.jsonl").write_text((LINE + "\n") * PROBED_SAMPLES + Path("set/a.jsonl").read_text())
    sources = f"[[mix.source]]\nname = 'demo_clipart'\npath = '{DEMO / 'demo_clipart.jsonl'}'\n"
    sources += toml.partition("video = true\n")[2]
    write_toml(model, f'[mix]\nroot = "disk/mixes"\nshards = "disk/shards"\n{sources}')

    def build(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-B", "-c", SCRIPT, str(limit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    full = build(0 if how == "tmpfs" else 400_000)
    assert full.returncode == 2, full.stderr
    assert re.search(r"(No space left on device|File too large)\n$", full.stderr)
    assert "/set-" in full.stderr.splitlines()[-1]
    whole = {path: path.stat().st_mtime_ns for path in Path("disk").rglob("*") if path.is_file()}
    (part,) = {path.parent for path in whole if path.name == "part.json"}
    assert "demo_clipart" in part.parts
    assert {path.parent for path in whole} == {part}
    assert not list(Path("disk/shards/.staging").iterdir())
    if how == "tmpfs":
        subprocess.run(["mount", "-o", "remount,size=64m", "disk"], check=True)
    again = build(0)
    assert (again.returncode, "convert: 2 parts, 1 cached" in again.stderr) == (0, True), again.stderr
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    assert main(["verify", "disk/mixes/mix", "--num-workers", "1"]) == 0


def test_a_source_that_does_not_fit_on_the_disk_is_refused_before_it_starts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_toml(model, showing("0.bmp", picture(size=(1000, 1000), image_format="BMP"))())
    real = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: real(folder)._replace(free=2_900_000))
        assert main(["build-mix", "mix.toml", "--num-workers", "1"]) == 2
    said = capfd.readouterr().err
    assert "shards: about 0.003 GB are to be written here (set 0.003 GB), 0.0029 GB are free; make room" in said
    assert not [path for path in Path("shards").rglob("*") if path.is_file()]
    assert main(["build-mix", "mix.toml", "--num-workers", "1"]) == 0


OUTCOMES = {
    "stopped": "the build stops (exit 2): ",
    "rejected": "the sample is rejected: ",
    "not selected": "the sample is not selected: ",
    "warned": "used, with a note: ",
    "used": "used",
}
HEAD = """# What becomes of bad input

Each row is planted and built by `tests/end_to_end/test_outcomes.py`; this page is written from the same list. A
rejected sample is a row of `samples.parquet` with its reason, a sample that is not selected one of `selection.parquet`;
a build that stops says where, and leaves all that was whole.

| input | outcome |
|---|---|
"""
OTHERS = (
    (
        "more data than the disk has room for",
        "the build stops (exit 2) before anything is converted, and says how much of which source is to be written",
    ),
    (
        "a full disk",
        "the build stops (exit 2) and names the file; parts that were whole stay whole, and the same command goes on "
        "when there is room",
    ),
    ("a local file that changes while it is converted", "the build stops (exit 2) and names it; the part is not kept"),
)
"""What has a test of its own in this file."""


def outcomes_page() -> str:
    rows = [(row.what, OUTCOMES[row.outcome] + (f"`{row.says}`" if row.says else "")) for row in BAD_INPUTS]
    return HEAD + "".join(f"| {what} | {outcome} |\n" for what, outcome in (*rows, *OTHERS))


def test_the_page_says_what_the_list_says() -> None:
    assert PAGE.read_text() == outcomes_page(), "run: python -m tests.end_to_end.test_outcomes"


if __name__ == "__main__":
    PAGE.write_text(outcomes_page())
