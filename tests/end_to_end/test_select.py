"""[mix.select] through the real command: reasons, the user's files, and shards that stay as they are."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.small_mixes import write_conversations

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.manifest import read_manifest
from vlm_prep.cli import main as prep
from vlm_prep.user_tables import read_held_out, read_score_tables
from vlm_train.make_tiny import make_tiny

NUMBERS = range(30)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, two datasets of questions, their shards, and the mix ``all`` of both."""
    folder = tmp_path_factory.mktemp("select")
    make_tiny("qwen3_vl", folder / "model")
    for name in ("one", "two"):
        write_conversations(folder / f"{name}.jsonl", [(f"{name} asks {n}", f"answer {n}") for n in NUMBERS])
    build(folder, "all", "")
    return folder


def build(folder: Path, name: str, select: str, *, code: int = 0) -> Path:
    sources = "".join(f'[[mix.source]]\nname = "{one}"\npath = "{folder}/{one}.jsonl"\n' for one in ("one", "two"))
    (folder / f"{name}.toml").write_text(
        f'[policy]\nmodel_name_or_path = "{folder}/model"\nmodel_max_length = 512\n'
        f'[mix]\nroot = "{folder}/mixes"\nshards = "{folder}/shards"\n{select}\n{sources}'
    )
    assert prep(["build-mix", str(folder / f"{name}.toml")]) == code
    return folder / "mixes" / name


def outcomes(mix: Path) -> Counter[tuple[str, str]]:
    rows = pq.read_table(version(mix) / "selection.parquet").to_pylist()
    return Counter((row["dataset"], row["reason"] or row["split"]) for row in rows)


def version(mix: Path) -> Path:
    return mix / json.loads((mix / "current.json").read_text())["fingerprint"]


def test_every_rule_has_its_reason(place: Path) -> None:
    (place / "bad.csv").write_text("dataset,sample_id,why\none,one.jsonl#000000000,ugly\n")
    scores = [{"dataset": "two", "sample_id": f"two.jsonl#{n:09d}", "quality": n / 30} for n in NUMBERS]
    pq.write_table(pa.Table.from_pylist(scores), place / "scores.parquet")
    mix = build(
        place,
        "rules",
        f"""
        [mix.select]
        exclude = ["{place}/bad.csv"]
        max_samples = {{one = 7}}
        dataset_where = {{two = {{good = "scores.quality >= 0.5"}}}}
        tables = {{scores = "{place}/scores.parquet"}}
        [mix.select.eval]
        num_samples = 2
        """,
    )
    assert outcomes(mix) == {
        ("one", "excluded"): 1,
        ("one", "eval"): 2,
        ("one", "train"): 7,
        ("one", "over_max_samples"): 20,
        ("two", "where:good"): 15,
        ("two", "eval"): 2,
        ("two", "train"): 13,
    }
    manifest = read_manifest(version(mix))
    assert {one.name: one.num_selected for one in manifest.datasets} == {"one": 7, "two": 13}
    assert manifest.epoch_samples == 20
    assert prep(["verify", str(mix)]) == 0


def test_ids_of_a_list_that_no_sample_has_are_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "odd.csv").write_text("dataset,sample_id\none,one.jsonl#000000001\none,one.jsonl#1\nuno,x\nuno,x\n")
    mix = build(place, "unknown", f'[mix.select]\nexclude = ["{place}/odd.csv"]')
    assert outcomes(mix)["one", "excluded"] == 1
    said = "mix.select.exclude: 2 of 3 ids are of no converted sample, such as one/one.jsonl#1"
    assert said in capsys.readouterr().err
    assert said in json.loads((version(mix) / "manifest.json").read_text())["notes"]


def test_another_selection_touches_no_shard(place: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (place / "shards").rglob("*.mds")}
    build(place, "fewer", '[mix.select.where]\nshort = "text_tokens < 40"\n[mix.select.max_samples]\ntwo = 3')
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (place / "shards").rglob("*.mds")}
    assert after == before and before


def test_another_mix_can_be_held_out(place: Path) -> None:
    half = build(place, "half", "[mix.select.max_samples]\none = 5\n[mix.select]\nexclude = []")
    mix = build(place, "leaky", f'[mix.select]\nheld_out = ["{place}/hashes.csv"]', code=2)
    rows = pq.read_table(next((place / "shards" / "one").glob("*/parts/*/samples.parquet"))).to_pylist()
    hashes = [row["text_hash"] for row in rows[:4]]
    (place / "hashes.csv").write_text("\n".join(["text_hash", *hashes]) + "\n")
    mix = build(place, "leaky", f'[mix.select]\nheld_out = ["{place}/hashes.csv"]')
    assert outcomes(mix) == {("one", "held_out"): 4, ("one", "train"): 26, ("two", "train"): 30}
    assert read_held_out([str(half)], origin="here").num_rows == 60


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("[mix.select.max_samples]\noen = 3", "no dataset 'oen'; did you mean 'one'?"),
        ('[mix.select.where]\nlucky = "random() < 0.5"', "random: another value each time"),
        ("[mix.select.where]\nnew = \"current_date > date '2020-01-01'\"", "current_date: another value each time"),
        ('[mix.select]\nexclude = ["nowhere.csv"]', "nowhere.csv: no such file"),
        ('[mix.select]\nexclude = ["list.txt"]', "expected a file of .parquet"),
        ("[mix.select.eval]\nfraction = 0.5\nnum_samples = 3", "expected either fraction or num_samples"),
        ('[mix.select.duplicates]\npriority = ["one"]', "has no effect without duplicates.by"),
        ('[mix.select.tables]\nscores = "x.parquet"', "has no effect without a condition"),
        ('[mix.select.dataset_where.one]\nbad = "quality > 1"', "mix.select.dataset_where.one.bad"),
        ('[mix.select]\nheld_out = ["nowhere"]', "nowhere: no such file or folder"),
    ],
)
def test_a_rule_that_cannot_hold_is_named(
    select: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(place, "wrong", select, code=2)
    assert said in capsys.readouterr().err


def test_a_table_with_two_rows_for_a_sample_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("dataset,sample_id,quality\na,1,0.5\na,1,0.7\n")
    with pytest.raises(ConfigError, match=r"2 rows for a/1"):
        read_score_tables({"scores": str(tmp_path / "scores.csv")}, origin="here")


def test_a_table_of_other_samples_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "others.csv").write_text("dataset,sample_id,quality\nthree,1,0.5\n")
    tables = f'[mix.select.tables]\nscores = "{place}/others.csv"\n[mix.select.where]\ngood = "scores.quality > 0"'
    build(place, "others", tables, code=2)
    assert "none of its 1 rows is of a sample of this mix" in capsys.readouterr().err
