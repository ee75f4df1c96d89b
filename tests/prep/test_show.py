"""``vlm-prep show``: one sample with its decision and its lineage; kept, left out, rejected; ids that are not one."""

import json
from pathlib import Path

import pytest

from vlm_catalogs.hashing import content_hash
from vlm_prep.cli import main as prep
from vlm_train.cli import main as train

DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"
MIX = Path("mixes/mix")


def show(path: Path, sample: str, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> str:
    capsys.readouterr()
    assert prep(["show", str(path), sample, *options]) == code
    said = capsys.readouterr()
    return said.out if code == 0 else said.err


def shown(path: Path, sample: str, capsys: pytest.CaptureFixture[str]) -> dict:
    found: dict = json.loads(show(path, sample, capsys, "--json"))
    return found


def rebuild(*lines: str) -> None:
    with Path("mix.toml").open("a") as file:
        file.write("\n".join(["", *lines, ""]))
    assert prep(["build-mix", "mix.toml"]) == 0


def test_a_kept_sample_is_what_its_source_says(built: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = (DEMO / "demo_photos.jsonl").read_bytes().splitlines(keepends=True)
    record = json.loads(lines[2])
    name = "demo_photos.jsonl#000000002"
    found = shown(MIX, f"demo_photos/{name}", capsys)
    asked, told = record["messages"][0]["content"], found["conversations"][0][0]["content"]
    assert [one.get("text") for one in told] == [one.get("text") for one in asked]
    assert (found["source_uri"], found["byte_offset"]) == ("demo_photos.jsonl", len(lines[0]) + len(lines[1]))
    assert (found["decision"], found["selection"]["selected"]) == ("selected, split train", True)
    assert [one["total_tokens"] for one in found["lengths"]] == [found["selection"]["total_tokens"]]
    shard = Path(found["shard_file"]).read_bytes()
    stored = shard[found["byte_begin"] : found["byte_end"]]
    source = next(DEMO / item["image"] for item in asked if item["type"] == "image")
    assert name.encode() in stored and source.read_bytes() in stored

    text = show(MIX, name, capsys, "--media", str(tmp_path / "media"))
    (written,) = (tmp_path / "media").iterdir()
    assert written.read_bytes() == source.read_bytes()
    assert content_hash(written.read_bytes()) == found["media"][0]["xxh3_128"]
    assert f"demo_photos/{name}\n  selected, split train\n  from demo_photos.jsonl, from byte" in text
    assert f"part {found['part']}, shard 0, sample 2, bytes" in text
    assert str(found["shard_file"]) in text and asked[-1]["text"] in text
    again = show(MIX, name, capsys, "--media", str(tmp_path / "media"), code=2)
    assert "exists already" in again, "files of the user are never overwritten"


def test_a_sample_that_is_not_selected_says_why(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rebuild("[mix.select.where]", "no_second = \"sample_id <> 'demo_photos.jsonl#000000002'\"")
    expected = "not selected: where:no_second ([mix.select.where] no_second is not true of it)"
    assert expected in show(MIX, "demo_photos.jsonl#000000002", capsys)
    assert "selected, split train" in show(MIX, "demo_photos.jsonl#000000003", capsys)
    assert "  converted\n" in show(Path("shards"), "demo_photos.jsonl#000000002", capsys), "outside of a mix"


@pytest.fixture
def two_sources(built: Path) -> None:
    """Two datasets whose files have the same name; the second sample of the first one lacks its picture."""
    hello = [{"role": "user", "content": "\x1b[2Jhi"}, {"role": "assistant", "content": "Hello."}]
    bad = [{"role": "user", "content": [{"type": "image", "image": "gone.png"}]}, hello[1]]
    for name, samples in {"one": [hello, bad, hello], "two": [hello]}.items():
        Path(name).mkdir()
        records = [{"id": f"{name}-{number}", "messages": messages} for number, messages in enumerate(samples)]
        (Path(name) / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rebuild(*(f"[[mix.source]]\nname = '{name}'\npath = '{name}'" for name in ("one", "two")))


@pytest.mark.usefixtures("two_sources")
def test_a_rejected_sample_is_shown_with_its_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = shown(MIX, "a.jsonl#000000001", capsys)
    assert (found["status"], found["reason"], found["selection"]) == ("rejected", "missing_media", None)
    assert (found["shard_file"], found["conversations"], found["media"]) == (None, [], [])
    expected = "one/a.jsonl#000000001\n  rejected: missing_media (the conversation uses a medium that is not there): "
    text = show(Path("shards"), "one/a.jsonl#000000001", capsys)
    assert text.startswith(expected) and "from a.jsonl, from byte" in text
    assert "no media in the shards" in show(MIX, "a.jsonl#000000001", capsys, "--media", str(tmp_path), code=2)


@pytest.mark.usefixtures("two_sources")
def test_an_id_of_several_samples_or_of_none_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    several = show(MIX, "a.jsonl#000000000", capsys, code=2)
    assert "2 samples have this id:\n  one/a.jsonl#000000000\n  two/a.jsonl#000000000\ngive dataset/" in several
    assert shown(MIX, "two/a.jsonl#000000000", capsys)["source_id"] == "two-0"
    typing_error = show(MIX, "demo_photos.json#000000002", capsys, code=2)
    assert (
        "no sample 'demo_photos.json#000000002'; near to it:\n  demo_photos/demo_photos.jsonl#00000000" in typing_error
    )
    assert "near to it:\n  one/a.jsonl#000000002\n" in show(MIX, "one-2", capsys, code=2), "the source's own id"
    assert show(MIX, "zzz", capsys, code=2).endswith("no sample 'zzz'\n")


@pytest.mark.usefixtures("two_sources")
def test_what_a_terminal_would_obey_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    text = show(MIX, "two/a.jsonl#000000000", capsys)
    assert "\x1b" not in text and "user: \\x1b[2Jhi" in text


@pytest.mark.usefixtures("two_sources")
def test_versions_of_a_source_are_told_apart_by_a_mix(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("two/a.jsonl").open("a") as file:
        file.write(json.dumps({"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}))
    assert prep(["build-mix", "mix.toml"]) == 0
    assert "versions of one source" in show(Path("shards"), "two/a.jsonl#000000000", capsys, code=2)
    assert shown(MIX, "two/a.jsonl#000000000", capsys)["status"] == "kept"


def test_a_run_shows_when_a_sample_was_drawn_and_its_loss(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("mix.toml").open("a") as file:
        file.write(
            "[train]\noutput_dir = 'run'\nmax_num_steps = 2\ntrain_batch_per_replica = 8\ncompile = false\n"
            "param_dtype = 'float32'\n[train.train_policy]\ntype = 'sft'\nmini_batch = 4\n"
            "[train.ckpt]\nexport_safetensors = false\n"
        )
    assert prep(["build-mix", "mix.toml"]) == 0
    assert train(["run", "mix.toml"]) == 0
    question = (
        "select dataset, sample_id, epoch, step, row, loss_sum / supervised_tokens as loss from sample_losses limit 1"
    )
    capsys.readouterr()
    assert prep(["sql", "run", question, "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    (draw,) = shown(Path("run"), f"{row['dataset']}/{row['sample_id']}", capsys)["draws"]
    assert {name: draw[name] for name in ("epoch", "step", "row")} == {
        name: row[name] for name in ("epoch", "step", "row")
    }
    assert draw["loss"] == pytest.approx(row["loss"])
    assert f"{row['loss']:.4f}" in show(Path("run"), f"{row['dataset']}/{row['sample_id']}", capsys)


def test_a_damaged_shard_writes_no_media(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(MIX, "demo_photos.jsonl#000000002", capsys)
    shard = Path(found["shard_file"])
    content = bytearray(shard.read_bytes())
    place = content.find(b"\xff\xd8\xff", found["byte_begin"]) + 100
    content[place] ^= 1
    shard.write_bytes(content)
    assert "is not what its hash says" in show(MIX, "demo_photos.jsonl#000000002", capsys, "--media", "out", code=2)
    assert not list(Path("out").glob("*"))
