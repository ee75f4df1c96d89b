"""``vlm-prep export``: what is written builds to the same samples again, media bytes and media table included."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vlm_catalogs import json_text
from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.manifest import current_mix
from vlm_catalogs.shard_reader import ShardReader
from vlm_prep.build import build_mix
from vlm_prep.export import export_mix

COMMAND = Path(sys.executable).parent / "vlm-prep"
DATASETS = ("demo_clipart", "demo_photos", "demo_video")
Stored = tuple[str, str, bytes, str, str]


@pytest.fixture
def mixed(built: Path, small: Any) -> Path:
    """The demo's mix with one more dataset: alternatives, options, unused media, tags in texts, other keys."""
    media = {"a": small.picture("red"), "b": small.picture("blue", image_format="JPEG"), "c": small.film()}
    for name, content in media.items():
        Path(name).write_bytes(content)
    answer = {"role": "assistant", "content": "It is.", "reasoning_content": "Hm."}
    items = [{"type": "video", "video": "c", "fps": 2.0}, {"type": "image", "image": "a", "max_pixels": 4096}]
    asked = {"role": "user", "content": [*items, {"type": "text", "text": "A ü <image>?"}]}
    again = {"role": "user", "content": [{"type": "text", "text": "And 😀"}, items[1], items[1]]}
    rows = [
        {"id": 7, "messages": [asked, answer], "source": {"page": 3}},
        {"messages": [[asked, answer], [again, answer]]},
        {"messages": [{"role": "user", "content": "No medium."}, answer], "images": ["b", "a"], "videos": ["c"]},
    ]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Path("mix.toml").open("a") as file:
        file.write("[[mix.source]]\nname = 'own'\npath = 'own.jsonl'\n")
    build_mix(load_config(Path("mix.toml")))
    return built


def stored(root: Path, dataset: str) -> list[Stored]:
    """All that must survive, of every sample that a mix of this dataset selects."""
    selection = pq.read_table(current_mix(root) / "selection.parquet", filters=[("dataset", "==", dataset)]).to_pylist()
    found = []
    for row in selection:
        (shard,) = Path("shards").glob(f"{dataset}/*/parts/{row['part']}/shard.{row['shard']:05d}.mds")
        if row["selected"]:
            sample = ShardReader(shard).read(row["index_in_shard"])
            table = json_text.dumps([facts.as_row() for facts in sample.media_table])
            texts = json_text.dumps(sample.messages), json_text.dumps(sample.alternatives)
            meta = {"id": sample.sample_id, **sample.meta}  # what has no id of its own gets ours
            found.append((*texts, bytes(sample.media), table, json_text.dumps(meta)))
    return found


@pytest.mark.parametrize("file_format", ["jsonl", "webdataset"])
def test_an_export_builds_to_the_same_samples(mixed: Path, file_format: str) -> None:
    num_samples = export_mix("mixes/mix", Path("out"), file_format=file_format)
    names = (*DATASETS, "own")
    ending = ".jsonl" if file_format == "jsonl" else ""
    sources = [f"[[mix.source]]\nname = 'again_{name}'\npath = 'out/{name}{ending}'\n" for name in names]
    head = Path("mix.toml").read_text().partition("[[mix.source]]")[0]
    Path("again.toml").write_text(head + "".join(sources))
    build_mix(load_config(Path("again.toml")))
    total = 0
    for name in names:
        before, after = stored(Path("mixes/mix"), name), stored(Path("mixes/again"), f"again_{name}")
        assert sorted(after) == sorted(before)
        total += len(before)
    assert total == num_samples == 71
    assert json.loads(Path("out/meta.json").read_text())["total_items"] == 71


def test_webdataset_members_are_named_by_key_and_suffix(mixed: Path) -> None:
    export_mix("mixes/mix", Path("out"), file_format="webdataset")
    with tarfile.open("out/own/000000.tar") as tar:
        names = tar.getnames()
        record = json.loads(tar.extractfile("000000000.json").read())  # type: ignore[union-attr]
    assert names[:3] == ["000000000.json", "000000000.0000_video_0.mp4", "000000000.0001_image_0.png"]
    assert record["messages"][0]["content"][0] == {"type": "video", "wds_field": "0000_video_0.mp4", "fps": 2.0}
    assert json.loads(Path("out/own/meta.json").read_text()) == {"total_items": 3}


def test_the_same_mix_exports_to_the_same_bytes(built: Path) -> None:
    for name in ("one", "two"):
        export_mix("mixes/mix", Path(name), file_format="webdataset")
    files = [path.relative_to("one") for path in Path("one").rglob("*") if path.is_file()]
    assert len(files) == 7
    assert all((Path("one") / name).read_bytes() == (Path("two") / name).read_bytes() for name in files)


def test_samples_that_the_mix_leaves_out_are_not_exported(built: Path) -> None:
    build_mix(load_config(Path("mix.toml"), overrides=["custom.include_video=false", "mix.name='no_video'"]))
    assert export_mix("mixes/no_video", Path("out"), file_format="jsonl") < 68
    assert not list(Path("out/media").rglob("*.mp4"))


def test_unused_media_whose_texts_hold_tags_are_left_out_with_a_note(
    built: Path, small: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = built / "wds"
    messages = [{"role": "user", "content": "What is <image>?"}, {"role": "assistant", "content": "A tag."}]
    members = [("a.json", json.dumps({"messages": messages}).encode()), ("a.png", small.picture("red"))]
    small.write_tar(folder / "0.tar", members)
    head = Path("mix.toml").read_text().partition("[[mix.source]]")[0]
    Path("tags.toml").write_text(f"{head}[[mix.source]]\nname = 'tags'\npath = '{folder}'\n")
    build_mix(load_config(Path("tags.toml")))
    export_mix("mixes/tags", Path("out"), file_format="jsonl")
    assert "unused media of 1 samples are left out" in capfd.readouterr().err
    assert json.loads(Path("out/tags.jsonl").read_text())["messages"][0]["content"][0]["text"] == "What is <image>?"


@pytest.mark.parametrize("in_use", ["file", "folder"])
def test_a_folder_in_use_is_refused_and_left_alone(built: Path, in_use: str) -> None:
    out = Path("out")
    if in_use == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    else:
        out.write_text("mine")
    with pytest.raises(ConfigError, match="out: exists and is not an empty folder"):
        export_mix("mixes/mix", out, file_format="jsonl")
    assert (out / "mine" if in_use == "folder" else out).read_text() == "mine"


def test_a_damaged_shard_stops_the_export_and_nothing_is_left(built: Path) -> None:
    (shard,) = Path("shards/demo_photos").glob("*/parts/*/shard.00000.mds")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    before = sorted(Path().iterdir())
    with pytest.raises(DataError, match=r"shard\.00000\.mds: sample \d+ .* damaged"):
        export_mix("mixes/mix", Path("out"), file_format="jsonl")
    assert not Path("out").exists()
    assert not any(Path(".staging").iterdir())
    assert sorted(path for path in Path().iterdir() if path.name != ".staging") == before


def test_the_command_exports_into_an_empty_folder(built: Path) -> None:
    Path("out").mkdir()
    command = [COMMAND, "export", "mix.toml", "out", "--format", "jsonl"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "out\n"
    assert "export: 68 samples, 3 datasets, jsonl: out" in run.stderr
    assert sorted(path.name for path in Path("out").glob("*.jsonl")) == [f"{name}.jsonl" for name in DATASETS]
    assert not Path(".staging").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    assert subprocess.run([*command[:2], "shards", *command[3:]], capture_output=True, check=False).returncode == 2
