"""``vlm-prep sql``: the views of a mix, of shards and of a run; what a query may not do; every example of the page."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from vlm_prep.cli import main as prep
from vlm_prep.sql_views import ABOUT
from vlm_train.cli import main as train

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "README.md").read_text().partition("## Ask the index")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```sql\n(.*?)\n```", PAGE, re.DOTALL)
VIEWS = [view for view in ABOUT if view != "decoded_media"]
"""Those that are there without full decoding."""
LAST_OF_A_MIX = VIEWS.index("selection") + 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards, mixes/tiny and a run of three steps."""
    folder = tmp_path_factory.mktemp("sql")
    toml = (REPOSITORY / "configs" / "tiny" / "qwen3_vl_normal.toml").read_text()
    toml = toml.replace('"tests/', f'"{REPOSITORY}/tests/').replace('"models/', f'"{REPOSITORY}/models/')
    toml = toml.replace("max_num_steps = 80", "max_num_steps = 3").replace(
        "export_safetensors = true", "export_safetensors = false"
    )
    toml = toml.replace('"outputs/tiny/qwen3_vl_normal"', f'"{folder}/run"')
    (folder / "tiny.toml").write_text(f'{toml}\n[mix]\nroot = "{folder}/mixes"\nshards = "{folder}/shards"\n')
    assert prep(["build-mix", str(folder / "tiny.toml")]) == 0
    assert train(["run", str(folder / "tiny.toml")]) == 0
    return folder


def ask(path: Path, query: str, capsys: pytest.CaptureFixture[str]) -> list[dict]:
    capsys.readouterr()
    assert prep(["sql", str(path), query, "--format", "json"]) == 0
    answer: list[dict] = json.loads(capsys.readouterr().out)
    return answer


def refusal(path: Path, query: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert prep(["sql", str(path), query]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("query", EXAMPLES)
def test_every_example_of_the_page_runs_on_a_run(query: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask(place / "run", query, capsys)
    can_be_empty = "having" in query or "not selected" in query or "rejected" in query
    assert rows or can_be_empty


def test_the_page_has_15_examples_and_names_every_view() -> None:
    assert len(EXAMPLES) >= 15
    assert set(ABOUT) <= set(re.findall(r"`(\w+)`", PAGE))


@pytest.mark.parametrize(
    ("path", "views"),
    [
        ("shards", VIEWS[: LAST_OF_A_MIX - 2]),
        ("mixes/tiny", VIEWS[:LAST_OF_A_MIX]),
        ("tiny.toml", VIEWS[:LAST_OF_A_MIX]),
        ("run", VIEWS),
    ],
)
def test_the_schema_lists_the_views_that_a_path_has(
    path: str, views: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert prep(["sql", str(place / path), "--schema"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in shown if not line.startswith(" ")] == views
    assert "    sample_key  UBIGINT" in shown


def test_views_hold_what_the_files_hold(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ask(place / "mixes" / "tiny", "select dataset, count(*) as n from facts group by all order by all", capsys)
    assert counts == [
        {"dataset": "demo_clipart", "n": 37},
        {"dataset": "demo_photos", "n": 17},
        {"dataset": "demo_video", "n": 14},
    ]
    source = [json.loads(line) for line in (REPOSITORY / "tests/demo_data/jsonl/demo_photos.jsonl").open()]
    turns = ask(
        place / "shards",
        "select count(*) as n from turns where dataset = 'demo_photos' and alternative = 0",
        capsys,
    )
    assert sum(turn["n"] for turn in turns) == sum(len(one["messages"]) for one in source)
    drawn = ask(place / "run", "select step, count(*) as n from sample_losses group by step order by step", capsys)
    assert drawn == [{"step": step, "n": 8} for step in range(3)]


def test_formats_agree(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mix, query = (
        place / "mixes" / "tiny",
        "select sample_id, num_images, [1, 2] as list, null as nothing from facts order by 1",
    )
    rows = ask(mix, query, capsys)
    assert prep(["sql", str(mix), query, "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [line["sample_id"] for line in lines] == [row["sample_id"] for row in rows]
    assert lines[0]["list"] == "[1, 2]" and lines[0]["nothing"] == ""
    target = tmp_path / "answer.parquet"
    assert prep(["sql", str(mix), query, "--format", "parquet", "--output", str(target)]) == 0
    assert pq.read_table(target).to_pylist() == rows
    assert prep(["sql", str(mix), query, "--format", "parquet", "--output", str(target)]) == 2, "never overwritten"
    assert prep(["sql", str(mix), "select 'a[b]c' as markup"]) == 0
    assert "a[b]c" in capsys.readouterr().out
    assert prep(["sql", str(mix), "select ['é', '漢'] as list"]) == 0
    assert '["é", "漢"]' in capsys.readouterr().out


@pytest.mark.parametrize("target", ["nowhere/x", "file/x"])
@pytest.mark.parametrize(
    "asked",
    [["--create-db"], ["select 1", "--format", "csv", "--output"], ["select 1", "--format", "parquet", "--output"]],
)
def test_an_answer_that_cannot_be_written_is_named(
    target: str, asked: list[str], place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert prep(["sql", str(place / "mixes" / "tiny"), *asked, str(tmp_path / target)]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / target}: cannot be written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_question_without_an_end_is_interrupted(place: Path) -> None:
    """In a process of its own, which interrupts itself: one that is not heard would never come back."""
    code = (
        "import os, signal, sys, threading, vlm_prep.ask\nfrom vlm_prep.cli import main\n"
        "threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()\nsys.exit(main(['sql', *sys.argv[1:]]))"
    )
    endless = "with recursive t (i) as (select 1 union all select i + 1 from t) select count(*) from t"
    command = [sys.executable, "-c", code, str(place / "mixes" / "tiny"), endless]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_columns_of_one_name_are_all_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ask(place / "mixes" / "tiny", "select 1 as a, 2 as a, 3 as a_1", capsys)
    assert rows == [{"a": 1, "a_2": 2, "a_1": 3}]
    assert prep(["sql", str(place / "mixes" / "tiny"), "select 1 as a, 2 as a"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][::2] == [["a", "a_1"], ["1", "2"]]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("copy (select 1) to '{place}/out.csv'", "expected one SELECT"),
        ("select 1; select 2", "2 statements"),
        ("create table t as select 1", "expected one SELECT"),
        ("attach '{place}/other.db'", "expected one SELECT"),
        ("set enable_external_access = true", "expected one SELECT"),
        ("select * from read_text('{place}/tiny.toml')", "disabled by configuration"),
        ("select * from read_csv('/etc/hostname')", "disabled by configuration"),
        ("select nope from samples", "nope"),
        ("selec 1", "syntax error"),
        ("", "expected exactly one of QUERY"),
    ],
)
def test_a_query_can_only_read_the_index(
    query: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in place.rglob("*"))
    assert said in refusal(place / "mixes" / "tiny", query.format(place=place), capsys)
    assert sorted(path for path in place.rglob("*")) == before


def test_a_path_without_an_index_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path}: neither a mix nor shards" in refusal(tmp_path, "select 1", capsys)


def test_a_damaged_table_is_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(place / "shards", tmp_path / "shards")
    broken = next((tmp_path / "shards").glob("demo_photos/*/parts/*/media.parquet"))
    broken.write_bytes(broken.read_bytes()[:40])
    assert "media.parquet" in refusal(tmp_path / "shards", "select count(*) from media", capsys)


def test_a_database_file_has_the_same_views_for_any_client(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mix.duckdb"
    assert prep(["sql", str(place / "run"), "--create-db", str(target)]) == 0
    with duckdb.connect(str(target), read_only=True) as client:
        rows = client.execute(
            "select dataset, num_draws from datasets join (select distinct dataset from facts) on name = dataset"
        ).fetchall()
        assert dict(rows) == {"demo_clipart": 37, "demo_photos": 17, "demo_video": 14}
    assert prep(["sql", str(place / "run"), "--create-db", str(target)]) == 2, "never overwritten"
