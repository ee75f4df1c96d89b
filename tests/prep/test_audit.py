"""``vlm-prep audit``: what it says and how it ends; broken queries, thresholds, limits, what is not known."""

import json
from pathlib import Path

import pytest

from vlm_prep.audit import read_queries
from vlm_prep.audit.query_file import SEVERITIES
from vlm_prep.audit.views import ABOUT
from vlm_prep.cli import main

HEADER = "-- title: A title\n-- severity: {severity}\n-- advice: Do something.\n"
MIX = "mixes/mix"


def write_query(name: str, select: str, *, severity: str = "W") -> Path:
    folder = Path("queries")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.sql").write_text(HEADER.format(severity=severity) + select)
    return folder


def audit(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict]:
    """Name -> finding, of the JSON that the command prints."""
    capsys.readouterr()
    assert main(["audit", *arguments, "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["version"]) == ("vlm-mix audit", 1)
    return {one["name"]: one for one in said["findings"]}


def test_a_mix_gets_an_audit_file_that_says_the_same_each_time(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audit(MIX, capsys=capsys)
    [path] = built.glob("mixes/mix/*/audit.json")
    first = path.read_bytes()
    assert [one["name"] for one in json.loads(first)["findings"]] == list(found)
    assert not [one for one in found.values() if one["severity"] == "E" and one["status"] == "found"]
    assert found["tokens_per_dataset"]["rows"][0][:2] == ["demo_clipart", 37]
    assert audit("mix.toml", capsys=capsys) == found
    assert path.read_bytes() == first
    assert main(["verify", MIX]) == 0, "audit.json is no fault of a mix"


def test_people_get_plain_lines_with_examples_and_advice(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_query("big", "select sample_id, num_turns from samples order by sample_id", severity="I")
    capsys.readouterr()
    assert main(["audit", MIX, "--queries", str(folder)]) == 0
    said = capsys.readouterr()
    assert "I  big: A title: 68 rows\n     sample_id: " in said.out
    assert "     ... and 65 more\n     -> Do something.\n" in said.out
    assert "decoded_media" in said.out.partition("not run, so nothing is known:")[2]
    assert "audit: " in said.err and " clean, " in said.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER.format(severity="W") + "select 1\nfrom samples\nwhere nope = 1", "bad.sql:6: Binder Error"),
        (HEADER.format(severity="W") + "select 1\nfrom from samples", "bad.sql:5: syntax error"),
        (HEADER.format(severity="W") + "select * from nothing_here", "nothing_here"),
        (HEADER.format(severity="W") + "copy (select 1) to 'out.csv'", "expected one SELECT"),
        (HEADER.format(severity="W") + "select 1; select 2", "2 statements"),
        (HEADER.format(severity="W") + "select * from read_text('mix.toml')", "disabled by configuration"),
        (HEADER.format(severity="W") + "select $nope", "$nope: the header has no line `-- threshold: nope = ...`"),
        (HEADER.format(severity="W") + "-- threshold: most = 1\nselect 1", "threshold most is not used"),
        (HEADER.format(severity="W") + "select 1/('a' || reason)::int from samples where 'x'::int = 1", "Conversion"),
        (HEADER.format(severity="X") + "select 1", "bad.sql:1: severity 'X'"),
        ("-- title: t\n-- severity: E\nselect 1", "bad.sql:1: the header lacks advice"),
        ("-- title: t\n-- author: me\n-- severity: E\nselect 1", "bad.sql:2: unknown key 'author'"),
        ("-- title: t\n-- threshold: much\nselect 1", "bad.sql:2: expected `threshold: name = number"),
        ("", "bad.sql:1: the header lacks title, severity, advice"),
    ],
)
def test_a_broken_query_is_the_users_and_takes_no_other_with_it(
    text: str, said: str, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_query("fine", "select dataset, sample_id from samples limit 2")
    (folder / "fine.sql").write_text((folder / "fine.sql").read_text(), encoding="utf-8-sig")  # as Windows saves it
    (folder / "bad.sql").write_text(text)
    found = audit(MIX, "--queries", "queries", capsys=capsys, code=2)
    assert found["bad"]["status"] == "not_run" and said in found["bad"]["reason"]
    assert found["fine"]["status"] == "found" and found["fine"]["num_rows"] == 2
    assert len(found) == len(read_queries()[0]) + 2
    assert not Path("out.csv").exists()


def test_a_name_that_is_taken_and_a_file_that_is_no_text_are_named(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_query("role_order", "select 1")
    (folder / "image.sql").write_bytes(b"\xff\xfe\x00")
    capsys.readouterr()
    assert main(["audit", MIX, "--queries", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "role_order.sql has this name already" in said
    assert "image.sql: not UTF-8" in said


def test_a_folder_named_as_a_query_is_none_and_a_file_that_cannot_be_read_is_named(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_query("fine", "select dataset from samples")
    (folder / "d.sql").mkdir()
    assert audit(MIX, "--queries", str(folder), capsys=capsys)["fine"]["status"] == "found"
    (folder / "locked.sql").symlink_to("/proc/self/mem")  # a file that not even root can read from its beginning
    found = audit(MIX, "--queries", str(folder), capsys=capsys, code=2)
    assert "locked.sql: cannot be read: " in found["locked"]["reason"]
    assert found["fine"]["status"] == "found"


def test_rows_stand_in_the_order_of_the_query_or_else_by_all_columns(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_query("ordered", "select sample_id from samples order by sample_id desc")
    write_query("unordered", "select sample_id, 1 as a, 2 as a from samples")
    found = audit(MIX, "--queries", "queries", capsys=capsys)
    assert len(found["ordered"]["rows"]) == 20
    assert found["ordered"]["rows"] == sorted(found["ordered"]["rows"], reverse=True)
    assert found["unordered"]["rows"] == sorted(found["unordered"]["rows"])
    assert found["unordered"]["rows"][0][1:] == [1, 2], "two columns of one name are two columns"


def test_thresholds_and_limits_come_from_the_toml(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = Path("mix.toml").read_text()
    assert audit("mix.toml", capsys=capsys)["extreme_aspect"]["status"] == "clean"
    changed = "[mix.audit.thresholds.extreme_aspect]\nmost_ratio = 1.01\n"
    Path("mix.toml").write_text(toml + changed)
    assert audit("mix.toml", capsys=capsys, code=3)["extreme_aspect"]["status"] == "found"
    assert audit("mix.toml", "--set", "mix.audit.fail_at.E=0", capsys=capsys)
    assert audit("mix.toml", "--set", "mix.audit.fail_at={E=0, I=1}", capsys=capsys, code=3)
    assert audit("mix.toml", "--set", "mix.audit.fail_at={E=2}", capsys=capsys)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("mix.audit.thresholds.extreme_aspect.most=1", "extreme_aspect.most: it has most_ratio"),
        ("mix.audit.thresholds.no_such.most=1", "no_such: there is no such query"),
        ("mix.audit.thresholds.extreme_aspect.most_ratio='x'", "expected a table of tables of numbers"),
        ("mix.audit.fail_at.X=1", "unknown severity, expected E, W, I"),
        ("mix.audit.queries=['nowhere']", "nowhere: no such folder"),
        ("mix.audit.queries=['mixes']", "mixes: no .sql file in it"),
        ("mix.audit.benchmarks=['nowhere']", "mix.audit.benchmarks: nowhere"),
    ],
)
def test_settings_that_mean_nothing_are_named(
    setting: str, said: str, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "benchmarks" in setting:
        write_query("contaminated", "select hash from benchmarks")
    queries = ["--queries", "queries"] if Path("queries").is_dir() else []
    assert main(["audit", "mix.toml", "--set", setting, *queries]) == 2
    assert said in capsys.readouterr().err


def test_what_is_not_known_is_not_called_clean(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audit(MIX, capsys=capsys)
    assert found["undecodable_media"]["status"] == "not_run"
    assert "decoded" in found["undecodable_media"]["reason"]
    of_shards = audit("shards", capsys=capsys)
    assert of_shards["tokens_per_dataset"]["reason"] == "selection: only a mix has it"
    assert not list(built.glob("shards/**/audit.json"))


def test_every_query_of_the_package_can_be_read() -> None:
    queries, broken = read_queries()
    assert not broken
    assert len(queries) >= 6
    for query in queries:
        assert query.severity in SEVERITIES
        assert query.is_ordered, f"{query.name}: its rows stand in no order"
        assert query.title[0].isupper() and query.advice.endswith(".")


REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "audits.md").read_text()


def rows_of_page(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    lines = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def test_the_page_has_a_query_for_every_check_or_the_readme_says_why_not() -> None:
    queries = {query.name: query for query in read_queries()[0]}
    readme = (REPOSITORY / "README.md").read_text().partition("## Audit")[2].partition("\n## ")[0]
    asked = set()
    for check, severity, answer in rows_of_page("Checks"):
        if answer.startswith("not done: "):
            assert f"*{check}*" in readme
        else:
            names = [name.strip("`") for name in answer.split(", ")]
            assert queries[names[0]].severity == severity, check
            asked.update(names)
    assert asked == set(queries)
    assert len(rows_of_page("Checks")) >= 40


def test_the_page_lists_the_queries_as_they_are() -> None:
    shown = [row[:4] for row in rows_of_page("Queries")]
    expected = [
        [f"`{query.name}`", query.severity, query.title, ", ".join(f"{k} = {v}" for k, v in query.thresholds.items())]
        for query in sorted(read_queries()[0], key=lambda query: (SEVERITIES.index(query.severity), query.name))
    ]
    assert shown == expected
    assert [row[0].strip("`") for row in rows_of_page("Views of the audit")] == list(ABOUT)


def test_the_readmes_query_and_settings_work(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (REPOSITORY / "README.md").read_text().partition("\n## Audit")[2].partition("\n## ")[0]
    query, toml = (section.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("sql", "toml"))
    Path("my_audits").mkdir()
    Path("my_audits/many_images.sql").write_text(query)
    Path("hashes.csv").write_text("hash\n0123456789abcdef0123456789abcdef\n")
    toml = toml.replace('"mixes/benchmark", ', "")
    Path("mix.toml").write_text(Path("mix.toml").read_text() + toml)
    found = audit("mix.toml", capsys=capsys)
    assert found["many_images"]["status"] == found["benchmark_contamination"]["status"] == "clean"
    many = "mix.audit.thresholds.many_images.most_images=0"
    assert audit("mix.toml", "--set", many, capsys=capsys)["many_images"]["status"] == "found"
