"""Conditions of the user decide by SQL what leaves; they can read nothing but the index, and their faults are named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_prep.build import build_mix
from vlm_prep.dry_run import look
from vlm_prep.where import Condition, check_condition


def build(folder: Path, where: str) -> tuple[Path, list[dict[str, object]]]:
    text = (folder / "mix.toml").read_text()
    (folder / "other.toml").write_text(f'{text}\n[mix]\nname = "mix"\n[mix.select.where]\n{where}\n')
    version = build_mix(load_config(folder / "other.toml"))
    return version, pq.read_table(version / "selection.parquet").to_pylist()


def test_what_a_condition_is_not_true_of_leaves_by_its_name_and_no_shard_is_touched(built: Path) -> None:
    shards = {path: path.stat().st_mtime_ns for path in (built / "shards").rglob("*.mds")}
    clipart = "case when dataset <> 'demo_clipart' or right(sample_id, 1) = '1' then num_media > 0 end"
    _, rows = build(built, f'one_turn = "num_turns <= 2"\nknown = "{clipart}"')
    turns = {
        row["sample_key"]: row["num_turns"]
        for path in (built / "shards").rglob("samples.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    assert {row["reason"] for row in rows} == {None, "where:one_turn", "where:known"}
    assert all((row["reason"] == "where:one_turn") == (turns[row["sample_key"]] > 2) for row in rows)
    clipart_left = [row for row in rows if row["dataset"] == "demo_clipart" and row["selected"]]
    assert clipart_left
    assert all(str(row["sample_id"]).endswith("1") for row in clipart_left)
    assert shards == {path: path.stat().st_mtime_ns for path in (built / "shards").rglob("*.mds")}


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("no_such_column > 1", "no_such_column"),
        ("num_images >", "syntax error"),
        ("1); drop table samples; select (1", "Only SELECT"),
        ("1); select (1", "one expression"),
        ("true) or (1 = 1", "closes a parenthesis that it has not opened"),
        ("  ", "it is empty"),
        ("1) from read_csv('mix.toml') where (1", "one expression"),
        ("(select count(*) from read_text('mix.toml')) > 0", "disabled by configuration"),
    ],
)
def test_a_broken_or_reaching_condition_is_the_users_with_its_line(built: Path, sql: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"other\.toml:\d+: mix\.select\.where\.bad: ") as caught:
        build(built, f'bad = "{sql}"')
    assert sql in str(caught.value)
    assert message in str(caught.value)


def test_any_one_expression_is_taken() -> None:
    check_condition(Condition(name="a", sql="a > 1 -- with a remark", origin="x.toml:1"))


def test_a_column_that_is_not_there_is_said_before_anything_is_converted(built: Path) -> None:
    text = (built / "mix.toml").read_text()
    (built / "other.toml").write_text(f"{text}\n[mix]\nshards = 'new'\n[mix.select.where]\na = 'num_pictures > 3'\n")
    config = load_config(built / "other.toml")
    with pytest.raises(ConfigError, match=r'mix\.select\.where\.a: num_pictures > 3\n.*"num_pictures" not found'):
        build_mix(config)
    assert not (built / "new").exists()
    assert "num_pictures" in look(config).problems[0]
