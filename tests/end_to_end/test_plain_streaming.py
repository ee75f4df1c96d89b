"""Shards are read by plain ``streaming``, in an environment that does not have this project."""

import json
import shutil
import subprocess
import sys
import sysconfig
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"
OURS = ("vlm_catalogs", "vlm_prep", "vlm_train")

MIX_TOML = """
[custom]
include_video = true

[policy]
model_name_or_path = "tiny"
model_max_length = 1024

[mix]
num_workers = 1

[[mix.source]]
name = "demo"
path = "data"
format = "jsonl"
"""

READER = f"""
import hashlib, importlib.util, json, sys
assert not any(importlib.util.find_spec(name) for name in {OURS!r}), "this project is installed here"
from streaming import StreamingDataset
def read(local, remote):
    dataset = StreamingDataset(local=local, remote=remote or None, shuffle=False, batch_size=1, num_canonical_nodes=1)
    rows = []
    for sample in dataset:
        content = sample.pop("media")
        ends = [(row["offset"], row["offset"] + row["size"]) for row in sample["media_table"]]
        rows.append(sample | {{"media": [hashlib.sha256(content[begin:end]).hexdigest() for begin, end in ends]}})
    assert [row["sample_id"] for row in rows] == [dataset[index]["sample_id"] for index in range(len(dataset))]
    return rows
print(json.dumps([read(*folders.split("|")) for folders in sys.argv[1:]]))
"""

Row = dict[str, Any]


@pytest.fixture(scope="module")
def python_without_us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that sees the libraries of this one, but not its ``.pth`` files: not us."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site_packages,) = (folder / "lib").glob("python*/site-packages")
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a source of two files, a TOML and a tiny model."""
    make_tiny("qwen3_vl", tmp_path / "tiny")
    (tmp_path / "mix.toml").write_text(MIX_TOML)
    (tmp_path / "data").mkdir()
    shutil.copytree(DEMO / "media", tmp_path / "data" / "media")
    for name in ("demo_clipart", "demo_photos"):
        shutil.copyfile(DEMO / f"{name}.jsonl", tmp_path / "data" / f"{name}.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build_mix() -> Path:
    """Runs the command; the layout folder of the source's shards."""
    subprocess.run([Path(sys.executable).parent / "vlm-prep", "build-mix", "mix.toml"], check=True)
    (layout,) = Path("shards/demo").iterdir()
    return layout


def read(python: Path, *folders: tuple[Path, Path | None]) -> list[list[Row]]:
    """The samples of each pair of a local folder and a remote one or None; in one process, for its start takes long."""
    arguments = [f"{local.absolute()}|{remote.absolute() if remote else ''}" for local, remote in folders]
    output = subprocess.check_output([python, "-I", "-c", READER, *arguments], text=True)
    read_rows: list[list[Row]] = json.loads(output.splitlines()[-1])
    return read_rows


def parts_of(layout: Path) -> list[str]:
    return sorted(path.parent.name for path in layout.glob("parts/*/part.json"))


def expected_rows(*names: str) -> list[tuple[str, list[str], list[str]]]:
    """Per sample: id, texts of the first conversation, hashes of its media files in order of first reference."""
    rows = []
    for name in names:
        for number, line in enumerate((DEMO / f"{name}.jsonl").read_text().splitlines()):
            messages = json.loads(line)["messages"]
            first = messages[0] if isinstance(messages[0], list) else messages
            files = dict.fromkeys(item[item["type"]] for item in items_of(first) if item["type"] != "text")
            hashes = [sha256((DEMO / file).read_bytes()).hexdigest() for file in files]
            rows.append((f"{name}.jsonl#{number:09}", texts_of(first), hashes))
    return rows


def items_of(messages: list[Row]) -> list[Row]:
    contents = [message["content"] for message in messages]
    listed = [[{"type": "text", "text": content}] if isinstance(content, str) else content for content in contents]
    return [item for items in listed for item in items]


def texts_of(messages: list[Row]) -> list[str]:
    return [item["text"] for item in items_of(messages) if item["type"] == "text"]


def as_expected(rows: list[Row]) -> list[tuple[str, list[str], list[str]]]:
    assert {row["dataset"] for row in rows} == {"demo"}
    return [(row["sample_id"], texts_of(row["messages"]), row["media"]) for row in rows]


def test_a_source_of_two_parts_is_read_locally_from_a_remote_and_again_after_a_part_was_added(
    workplace: Path, python_without_us: Path
) -> None:
    layout = build_mix()
    two_parts = parts_of(layout)
    assert len(two_parts) == 2
    remote = workplace / "elsewhere"
    shutil.copytree(layout, remote)
    from_local, from_remote = read(python_without_us, (layout, None), (workplace / "cache", remote))
    expected = expected_rows("demo_clipart", "demo_photos")
    assert as_expected(from_local) == expected
    assert as_expected(from_remote) == expected

    shutil.copyfile(DEMO / "demo_video.jsonl", workplace / "data" / "demo_video.jsonl")
    assert build_mix() == layout
    assert len(parts_of(layout)) == 3
    assert set(two_parts) < set(parts_of(layout))
    from_local, from_remote = read(python_without_us, (layout, None), (workplace / "second_cache", layout))
    expected = expected_rows("demo_clipart", "demo_photos", "demo_video")
    assert as_expected(from_local) == expected
    assert as_expected(from_remote) == expected


def test_the_environment_that_reads_them_is_without_this_project(python_without_us: Path) -> None:
    search = f"import importlib.util; print([importlib.util.find_spec(name) for name in {OURS!r}])"
    ours = subprocess.check_output([sys.executable, "-c", search], text=True)
    theirs = subprocess.check_output([python_without_us, "-I", "-c", search], text=True)
    assert "ModuleSpec" in ours
    assert theirs == "[None, None, None]\n"
