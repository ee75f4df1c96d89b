"""``vlm-prep diff``: what became other between two mixes, against changes that were made on purpose."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlm_catalogs.manifest import current_mix
from vlm_prep.cli import main as prep

DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"


def diff(capsys: pytest.CaptureFixture[str], a: str = "mixes/mix", b: str = "mixes/b") -> dict:
    capsys.readouterr()
    assert prep(["diff", a, b, "--json"]) == 0
    found: dict = json.loads(capsys.readouterr().out)
    return found


def build(*settings: str, name: str = "b") -> None:
    options = [part for setting in (f"mix.name={name}", *settings) for part in ("--set", setting)]
    assert prep(["build-mix", "mix.toml", *options]) == 0


def used(mix: str) -> set[str]:
    rows = pq.read_table(current_mix(Path(mix)) / "selection.parquet").to_pylist()
    return {row["sample_id"] for row in rows if row["selected"]}


def changes(found: dict) -> dict[tuple[str, str, str | None], int]:
    return {(one["dataset"], one["change"], one["reason"]): one["num_samples"] for one in found["changes"]}


def test_a_mix_and_itself_differ_in_nothing(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build()
    found = diff(capsys)
    assert (found["settings"], found["changes"]) == ([], [])
    assert all(one["a"] == one["b"] for one in found["datasets"])
    assert prep(["diff", "mixes/mix", "mix.toml"]) == 0
    assert capsys.readouterr().out.endswith("no difference\n")


def test_conditions_lengths_and_shares_show_with_their_reasons(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("mix.toml").read_text()
    weighted = text.replace(
        "[[mix.source]]\nname = 'demo_photos'", "[[mix.source]]\nweight = 3.0\nname = 'demo_photos'"
    )
    where = "[mix.select.where]\nfew = \"sample_id not like '%#00000000_'\"\n"
    Path("mix.toml").write_text(weighted + where)
    build("policy.model_max_length=100")
    found = diff(capsys)
    settings = {one["name"]: (one["a"], one["b"]) for one in found["settings"]}
    assert settings["policy.model_max_length"] == (1024, 100)
    assert settings["mix.source.demo_photos.weight"] == (1.0, 3.0)
    assert settings["mix.select.where.few"] == (None, "sample_id not like '%#00000000_'")
    left = used("mixes/mix") - used("mixes/b")
    assert left and used("mixes/b") < used("mixes/mix")
    counted = changes(found)
    assert sum(number for (_, change, _), number in counted.items() if change == "left") == len(left)
    assert counted["demo_photos", "left", "where:few"] == 10
    assert any(reason == "longer_than_model_max_length" for _, _, reason in counted)
    assert not any(change == "entered" for _, change, _ in counted)
    for one in found["changes"]:
        if one["change"] == "left":
            assert set(one["examples"]) <= left and one["examples"] == sorted(one["examples"])
    photos = next(one for one in found["datasets"] if one["name"] == "demo_photos")
    assert (photos["a"]["asked"], photos["b"]["asked"]) == (pytest.approx(1 / 3), pytest.approx(3 / 5))
    assert photos["b"]["num_selected"] == sum("photos" in name for name in used("mixes/b"))

    back = changes(diff(capsys, "mixes/b", "mixes/mix"))
    assert {
        (name, "left" if change == "entered" else change, reason): number
        for (name, change, reason), number in back.items()
    } == counted
    assert prep(["diff", "mixes/mix", "mixes/b"]) == 0
    said = capsys.readouterr().out
    assert "demo_photos: 10 left: not in b: where:few ([mix.select.where] few is not true of it)" in said


def test_other_lengths_splits_and_datasets_show(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = pq.read_table(current_mix(Path("mixes/mix")) / "selection.parquet").to_pylist()
    text = Path("mix.toml").read_text()
    sources = [part for part in text.split("[[mix.source]]") if "demo_clipart" not in part]
    Path("mix.toml").write_text("[[mix.source]]".join(sources) + "[mix.select.eval]\nnum_samples = 2\n")
    build("policy.model_max_length=100", "mix.length_policy=cut_text")
    found = diff(capsys)
    after = pq.read_table(current_mix(Path("mixes/b")) / "selection.parquet").to_pylist()
    lengths = {row["sample_key"]: row["total_tokens"] for row in after if row["selected"]}
    pairs = [(row["total_tokens"], lengths[row["sample_key"]]) for row in before if row["sample_key"] in lengths]
    other = [pair for pair in pairs if pair[0] != pair[1]]
    shown = [one for one in found["changes"] if one["change"] == "other_length"]
    assert other and sum(one["num_samples"] for one in shown) == len(other)
    assert sum(one["tokens_a"] for one in shown) == sum(a for a, _ in other)
    assert sum(one["tokens_b"] for one in shown) == sum(b for _, b in other)
    counted = changes(found)
    assert counted["demo_clipart", "left", "dataset_not_in_mix"] == 37
    assert counted["demo_photos", "other_split", "train -> eval"] == 2
    assert next(one for one in found["datasets"] if one["name"] == "demo_clipart")["b"] is None
    assert prep(["diff", "mixes/mix", "mixes/b"]) == 0
    assert "demo_photos: 2 changed sides: train -> eval" in capsys.readouterr().out


def test_a_source_that_changed_shows_by_sample(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"messages": [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": "Yes."}]}
        for number in range(6)
    ]
    file = Path("own.jsonl")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Path("mix.toml").open("a") as toml:
        toml.write("[[mix.source]]\nname = 'own'\npath = 'own.jsonl'\n")
    build(name="a")
    lines[1]["messages"][1]["content"] = "No."
    lines[2]["messages"][0]["content"] = [{"type": "image", "image": "gone.png"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:5], lines[0], lines[0]][:7]))
    build()
    assert changes(diff(capsys, "mixes/a")) == {
        ("own", "entered", "not_converted"): 1,
        ("own", "left", "rejected:missing_media"): 1,
        ("own", "other_content", "text"): 2,
    }
    back = changes(diff(capsys, "mixes/b", "mixes/a"))
    assert back["own", "left", "not_converted"] == 1 and back["own", "entered", "rejected:missing_media"] == 1


def test_a_path_that_is_no_mix_is_refused(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prep(["diff", "mixes/mix", "shards"]) == 2
    assert "shards: converted sources; diff compares two mixes" in capsys.readouterr().err
    (current_mix(Path("mixes/mix")) / "selection.parquet").write_bytes(b"PAR1")
    build()
    assert prep(["diff", "mixes/b", "mixes/mix"]) == 2
    assert "vlm-prep verify says what is wrong" in capsys.readouterr().err
