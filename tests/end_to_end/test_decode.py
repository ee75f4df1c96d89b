"""[mix] decode = "full" through the real commands: what does not decode leaves, parts stay, verify knows the facts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from tests.made_media import encoded, noise, video

from vlm_catalogs.layout import PART_FILE
from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_prep.cli import main as prep
from vlm_prep.fact_files import DECODED_NAME
from vlm_prep.verify import verify
from vlm_train.make_tiny import make_tiny

PHOTO = next((Path(__file__).parents[1] / "demo_data" / "jsonl" / "media" / "photos").glob("*.jpg"))
WHOLE = bytes(encoded(noise(), "JPEG"))
CLIP = bytes(video(12))
MEDIA = {
    "whole.jpg": WHOLE,
    "cut.jpg": WHOLE[: len(WHOLE) * 2 // 3],
    "whole.mp4": CLIP,
    "cut.mp4": CLIP[: CLIP.index(b"mdat") + 100] + bytes(200) + CLIP[CLIP.index(b"mdat") + 300 :],
}
SAMPLES: dict[str, dict[str, Any]] = {
    "good picture": {"images": ["whole.jpg"]},
    "bad picture": {"images": ["cut.jpg"]},
    "bad among good": {"images": ["whole.jpg", "cut.jpg"]},
    "bad but not shown": {"images": ["whole.jpg", "cut.jpg"], "shown": 1},
    "good video": {"videos": ["whole.mp4"]},
    "bad video": {"videos": ["cut.mp4"]},
    "only text": {},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and one source of good and bad media."""
    make_tiny("qwen3_vl", tmp_path / "model")
    for name, content in MEDIA.items():
        (tmp_path / name).write_bytes(content)
    lines = []
    for name, sample in SAMPLES.items():
        images, videos = sample.get("images", []), sample.get("videos", [])
        content = "<image>" * sample.get("shown", len(images)) + "<video>" * len(videos) + name
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}]
        lines.append(json.dumps({"messages": messages, "images": images, "videos": videos}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(*settings: str, decode: str = "full", select: str = "") -> Path:
    Path("mix.toml").write_text(
        '[policy]\nmodel_name_or_path = "model"\nmodel_max_length = 1024\n[custom]\ninclude_video = true\n'
        f'[mix]\ndecode = "{decode}"\n[[mix.source]]\nname = "data"\npath = "data.jsonl"\n{select}'
    )
    assert prep(["build-mix", "mix.toml", *settings]) == 0
    return current_mix(Path("mixes/mix"))


def reasons(mix: Path) -> dict[str, str | None]:
    rows = pq.read_table(mix / "selection.parquet").sort_by("sample_id").to_pylist()
    return {name: row["reason"] for name, row in zip(SAMPLES, rows, strict=True)}


def test_what_does_not_decode_leaves_where_a_conversation_shows_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_header = build(decode="header")
    assert set(reasons(by_header).values()) == {None}
    parts = {path: path.read_bytes() for path in Path("shards").rglob("parts/*/*") if path.is_file()}
    mix = build()
    bad = ("bad picture", "bad among good", "bad video")
    assert reasons(mix) == {name: "undecodable" if name in bad else None for name in SAMPLES}
    assert {path: path.read_bytes() for path in parts} == parts, "no file of the part is rewritten"
    said = capsys.readouterr().err
    assert "3 of 7 not selected: undecodable (one of its media does not decode)" in said
    assert "decode: 1 parts, 0 cached" in said
    assert build(decode="header") == by_header, "facts that are there but not asked for decide nothing"
    assert "decode:" not in capsys.readouterr().err


def test_facts_are_taken_once_and_a_damaged_file_of_them_stops_the_build(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = build()
    (facts,) = Path("shards").glob(f"*/*/parts/*/{DECODED_NAME}")
    before = facts.stat().st_mtime_ns
    assert build("--set", "mix.seed=3") != mix
    assert facts.stat().st_mtime_ns == before
    assert "decode: 1 parts, all cached" in capsys.readouterr().err
    content = facts.read_bytes()
    facts.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert prep(["build-mix", "mix.toml"]) == 2
    assert f"{DECODED_NAME}: damaged" in capsys.readouterr().err
    facts.unlink()
    assert build() == mix
    assert facts.read_bytes() == content


def test_verify_knows_the_facts(place: Path) -> None:
    mix = build()
    (facts,) = Path("shards").glob(f"*/*/parts/*/{DECODED_NAME}")
    assert verify("shards", num_workers=1).findings == verify(str(mix), num_workers=1).findings == ()
    content, table = facts.read_bytes(), pq.read_table(facts)
    for at in range(0, len(content), len(content) // 40):
        facts.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert {Path(finding.path).name for finding in verify(str(mix), num_workers=1).findings} == {facts.name}, at
        if not verify("shards", num_workers=1).findings:
            assert pq.read_table(facts).equals(table), "without a mix that pins it, what changes no value is not seen"
    for wrong, problem in ((table.slice(1), "stale_index"), (table.drop_columns("phash"), "wrong_schema")):
        pq.write_table(wrong, facts)
        assert [finding.problem for finding in verify("shards", num_workers=1).findings] == [problem]


def test_the_view_is_there_when_every_part_has_been_decoded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(decode="header")
    query = "select kind, count(*) as media, sum(decoded::int) as good from decoded_media group by kind order by kind"
    assert prep(["sql", "mixes/mix", query]) == 2
    assert "decoded_media does not exist" in capsys.readouterr().err
    build()
    capsys.readouterr()
    assert prep(["sql", "mixes/mix", query, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"kind": "image", "media": 6, "good": 3},
        {"kind": "video", "media": 2, "good": 1},
    ]
    (folder,) = Path("shards").glob("*/*/parts/*")
    assert {path.name for path in folder.iterdir()} >= {PART_FILE, "facts", "lengths"}


def test_near_duplicates_leave_as_the_toml_asks_and_decode_what_they_need(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    for number, content in enumerate((encoded(photo, "PNG"), encoded(photo, "JPEG", quality=60))):
        Path(f"{number}.img").write_bytes(content)
    lines = []
    for question, name in (("What?", "0.img"), ("What?", "1.img"), ("Where?", "1.img"), ("What?", "whole.jpg")):
        messages = [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": "Yes."}]
        lines.append(json.dumps({"messages": messages, "images": [name]}))
    Path("data.jsonl").write_text("\n".join(lines) + "\n")
    left = {}
    for by in ("none", "both", "media"):
        select = f'[mix.select.duplicates]\nby = "{by}"\nnear = 3\n'
        mix = build(decode="header", select=select)
        rows = pq.read_table(mix / "selection.parquet").to_pylist()
        left[by] = Counter(row["reason"] for row in rows)
        assert read_manifest(mix).settings["mix.select.duplicates"]["near"] == 3
        assert prep(["verify", str(mix)]) == 0
    assert left["none"] == {None: 4}
    assert left["both"] == {None: 3, "near_duplicate": 1}
    assert left["media"] == {None: 2, "near_duplicate": 1, "duplicate_of_media": 1}
    said = capsys.readouterr().err
    assert "decode: 1 parts, 0 cached" in said and "decode: 1 parts, all cached" in said
    assert "near duplicates: 3 samples that stay show nearly the same pictures as others, in 1 groups" in said
