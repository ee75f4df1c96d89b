"""The demo's data: small, whole, the same samples in every form, each file with its licence."""

import json
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageOps

DEMO = Path(__file__).parent / "demo_data"
DATASETS = ("demo_clipart", "demo_photos", "demo_video")
SPLITS = [(name, "wdinfo.json", "jsonl") for name in DATASETS] + [("demo_clipart", "wdinfo_val.json", "jsonl_val")]
SPEAKERS = {"human": "user", "gpt": "assistant", "system": "system"}

Conversations = list[list[tuple[str, Any]]]
Sample = tuple[str, Conversations]


def committed_files() -> list[Path]:
    files = (path for path in DEMO.rglob("*") if path.is_file())
    return [path for path in files if not any(part[0] in "._" for part in path.relative_to(DEMO).parts)]


def media_files() -> list[Path]:
    return [path for path in committed_files() if "media" in path.relative_to(DEMO).parts and path.suffix != ".tar"]


def tar_members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def media_of_member(name: str, content: bytes) -> dict[str | None, bytes]:
    """Media by name; a bare member has none of its own."""
    return pickle.loads(content) if name.endswith(".pkl") else {None: content}


def i4_samples(dataset: str, wdinfo: str) -> Iterator[Sample]:
    record = json.loads((DEMO / "i4" / dataset / wdinfo).read_text())
    for entry in record["data_list"]:
        root = DEMO / "i4" / record["root"]
        media = {}
        for name, content in tar_members(root / "media" / entry).items():
            media[name.rpartition(".")[0]] = media_of_member(name, content)
        for name, content in tar_members(root / "texts" / entry).items():
            sample = name.removesuffix(".json")
            own = media[sample]
            yield sample, spelled_alike(json.loads(content), lambda medium, own=own: own.get(medium, own.get(None)))


def jsonl_samples(folder: Path, dataset: str) -> Iterator[Sample]:
    for line in (folder / f"{dataset}.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield row["id"], spelled_alike(row["messages"], lambda file: (folder / file).read_bytes())


def spelled_alike(value: Any, read: Any) -> Conversations:
    """Conversations as (role, text or options or bytes) triples, whatever the spelling and the media names."""
    if isinstance(value, dict):
        value = value.get("messages", value.get("conversations"))
    conversations = value if isinstance(value[0], list) else [value]
    return [[fact for message in messages for fact in message_facts(message, read)] for messages in conversations]


def message_facts(message: dict[str, Any], read: Any) -> Iterator[tuple[str, Any]]:
    role = message.get("role") or SPEAKERS[message["from"]]
    yield role, message.get("reasoning_content")
    content = message["content"] if "content" in message else message["value"]
    for item in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = item["type"]
        options = {key: value for key, value in item.items() if key != kind}
        yield role, (options, item["text"] if kind == "text" else read(item[kind]))


def test_the_demo_data_are_under_two_megabytes() -> None:
    assert sum(path.stat().st_size for path in committed_files()) < 1_600_000


def test_every_image_decodes() -> None:
    images = [path for path in media_files() if path.suffix != ".mp4"]
    assert len(images) > 60
    for path in images:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) >= 28, path


def test_the_images_include_a_rotated_one_one_with_alpha_and_webp() -> None:
    photos = DEMO / "jsonl" / "media" / "photos"
    with Image.open(photos / "coffee.jpg") as image:
        assert image.size == (128, 192)
        assert ImageOps.exif_transpose(image).size == (192, 128)
    with Image.open(photos / "horse.png") as image:
        assert image.mode == "RGBA"
        assert image.getchannel("A").getextrema() == (0, 255)
    with Image.open(photos / "flower.webp") as image:
        assert image.format == "WEBP"


def test_every_video_decodes_to_its_last_frame() -> None:
    videos = [path for path in media_files() if path.suffix == ".mp4"]
    assert {path.name for path in videos} == {"bunny_wakes.mp4", "bunny_stretches.mp4"}
    for path in videos:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert len(frames) == stream.frames
            assert stream.average_rate == 12.5
            assert container.duration is not None
            assert 2e6 < container.duration < 4e6, "microseconds"
            assert frames[0].shape == (90, 160, 3)


@pytest.mark.parametrize(("dataset", "wdinfo", "folder"), SPLITS)
def test_both_forms_carry_the_same_samples(dataset: str, wdinfo: str, folder: str) -> None:
    from_i4 = list(i4_samples(dataset, wdinfo))
    assert len(from_i4) >= 6
    assert from_i4 == list(jsonl_samples(DEMO / folder, dataset))


@pytest.mark.parametrize(("dataset", "wdinfo", "folder"), SPLITS)
def test_a_wdinfo_counts_its_tars(dataset: str, wdinfo: str, folder: str) -> None:
    record = json.loads((DEMO / "i4" / dataset / wdinfo).read_text())
    texts = [tar_members(DEMO / "i4" / record["root"] / "texts" / entry) for entry in record["data_list"]]
    assert [len(members) for members in texts] == record["data_list_key_count"]
    assert sum(record["data_list_key_count"]) == record["total_key_count"]
    assert record["root"] == dataset


def test_pickles_are_plain_dicts_of_bytes_and_bare_members_stand_beside_them() -> None:
    suffixes = set()
    for tar in (DEMO / "i4").rglob("media/*/*.tar"):
        for name, content in tar_members(tar).items():
            suffixes.add(Path(name).suffix)
            if name.endswith(".pkl"):
                assert content[:2] == b"\x80\x04"
                media = pickle.loads(content)
                assert type(media) is dict
                assert all(type(key) is str and type(value) is bytes for key, value in media.items())
    assert suffixes == {".pkl", ".jpg", ".png", ".webp", ".mp4"}


def test_the_llava_rows_have_a_tag_per_medium() -> None:
    rows = json.loads((DEMO / "llava" / "demo_llava.json").read_text())
    assert len(rows) == 8
    for row in rows:
        text = "".join(turn["value"] for turn in row["conversations"])
        for kind in ("image", "video"):
            files = row.get(kind, [])
            files = [files] if isinstance(files, str) else files
            assert text.count(f"<{kind}>") == len(files)
            assert all((DEMO / "llava" / file).is_file() for file in files)


def test_conversations_come_in_every_kind() -> None:
    samples = [conversations for name in DATASETS for _, conversations in jsonl_samples(DEMO / "jsonl", name)]
    facts = [[fact for _, fact in conversations[0]] for conversations in samples]
    kinds = [tuple(fact[0]["type"] for fact in sample if isinstance(fact, tuple)) for sample in facts]
    assert any(kind.count("image") == 2 for kind in kinds)
    assert any("image" in kind and "video" in kind for kind in kinds)
    assert any(set(kind) == {"text"} for kind in kinds)
    assert any(isinstance(fact, str) for sample in facts for fact in sample)
    assert any(conversations[0][0][0] == "system" for conversations in samples)
    assert sum(len(conversations) > 1 for conversations in samples) == 3


def test_every_medium_has_a_licence_row_and_every_row_a_medium() -> None:
    rows = [line.split(" | ") for line in (DEMO / "LICENSES.md").read_text().splitlines() if line.startswith("| ")]
    header, *rows = rows
    licences = {row[0].removeprefix("| "): row[3] for row in rows}
    folders = ("jsonl/media", "jsonl_val/media", "llava/media")
    files = {path.relative_to(DEMO / top).as_posix() for top in folders for path in (DEMO / top).rglob("*.*")}
    assert header[0] == "| file"
    assert set(licences) == files
    assert all(licence.startswith(("public domain", "CC0-1.0", "CC-BY-")) for licence in licences.values())


def test_every_medium_of_the_i4_tree_stands_as_a_file_too() -> None:
    files = {path.read_bytes() for path in media_files()}
    for tar in (DEMO / "i4").rglob("media/*/*.tar"):
        for name, content in tar_members(tar).items():
            assert set(media_of_member(name, content).values()) <= files


def test_the_script_writes_the_committed_bytes_again(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DEMO / "make_demo_data.py", "--out", tmp_path], check=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written_by_hand = {path for path in DEMO.glob("*") if path.is_file() and path.name != "LICENSES.md"}
    committed = {path.relative_to(DEMO): path.read_bytes() for path in set(committed_files()) - written_by_hand}
    assert made == committed
