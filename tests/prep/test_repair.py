"""``vlm-prep verify --repair`` and ``--sources``: broken parts come back to the byte, or what changed is named."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import PART_FILE, StoredFile, read_part
from vlm_prep.build import build_mix
from vlm_prep.cli import main
from vlm_prep.verify import verify

DEMO = Path(__file__).parents[1] / "demo_data"


def part_of(dataset: str) -> Path:
    (folder,) = Path("shards", dataset).glob("*/parts/*")
    return folder


def tree(folder: str = "shards") -> dict[str, str]:
    """Every file but those put aside, by content."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file() and ".broken" not in path.parts)
    return {str(path): file_hash(path) for path in files}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[pq.ParquetFile], object]) -> None:
    """Change a table, and have part.json say that it should be so."""
    pq.write_table(change(pq.read_table(path)), path)
    record = read_part(path.parent)
    now = StoredFile(name=path.name, bytes=path.stat().st_size, xxh3_128=file_hash(path))
    tables = tuple(now if file.name == path.name else file for file in record.tables)
    (path.parent / PART_FILE).write_text(replace(record, tables=tables).as_json())


def swap(part: Path) -> None:
    other = part_of("demo_clipart")
    part.rename("between")
    other.rename(part)
    Path("between").rename(other)


FAULTS: dict[str, Callable[[Path], object]] = {
    "flip": lambda part: flip(part / "shard.00000.mds"),
    "flip in the index": lambda part: flip(part / "samples.parquet"),
    "truncate": lambda part: os.truncate(part / "shard.00000.mds", 500),
    "missing": lambda part: (part / "media.parquet").unlink(),
    "missing part.json": lambda part: (part / PART_FILE).unlink(),
    "missing part": shutil.rmtree,
    "swapped": swap,
    "wrong schema": lambda part: rewrite(part / "texts.parquet", lambda table: table.drop_columns(["sample_key"])),
    "stale index": lambda part: rewrite(part / "samples.parquet", lambda table: table.take([1, 0, *range(2, 17)])),
    "wrong count": lambda part: rewrite(part / "samples.parquet", lambda table: table.slice(1)),
    "lengths": lambda part: flip(next((part / "lengths").iterdir())),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_part_comes_back_to_the_byte(built: Path, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = tree()
    FAULTS[fault](part_of("demo_photos"))
    assert main(["verify", "mix.toml", "--num-workers", "1"]) == 3
    assert main(["verify", "mix.toml", "--repair", "--num-workers", "1"]) == 0, capfd.readouterr().err
    assert tree() == before
    assert main(["verify", "shards", "--num-workers", "1"]) == 0
    away = [path.name.partition("-")[0] for path in Path("shards/.broken").glob("*")]
    expected = {"missing part": [], "swapped": ["demo_clipart", "demo_photos"]}.get(fault, ["demo_photos"])
    assert sorted(away) == expected
    assert not list(Path("shards/.staging").glob("*"))
    assert "parts made again" in capfd.readouterr().err


def test_an_extra_file_is_told_and_left_alone(built: Path) -> None:
    (part_of("demo_photos") / "notes.txt").write_text("mine")
    assert main(["verify", "mix.toml", "--repair", "--num-workers", "1"]) == 3
    assert (part_of("demo_photos") / "notes.txt").read_text() == "mine"


def test_lengths_of_another_mix_stay_with_a_part_that_is_made_again(built: Path) -> None:
    build_mix(load_config(Path("mix.toml"), overrides=("mix.name='other'", "policy.model_max_length=900")))
    before = tree()
    assert len(list((part_of("demo_photos") / "lengths").iterdir())) == 2
    flip(part_of("demo_photos") / "shard.00000.mds")
    assert main(["verify", "mix.toml", "--repair", "--num-workers", "1"]) == 0
    assert tree() == before


@pytest.fixture
def own_source(built: Path) -> Path:
    """The photos as files that a test may change; the mix is built from them."""
    shutil.copytree(DEMO / "jsonl", "jsonl")
    Path("mix.toml").write_text(Path("mix.toml").read_text().replace(f"{DEMO}/jsonl", "jsonl"))
    build_mix(load_config(Path("mix.toml")))
    return Path("jsonl")


def test_a_source_that_has_changed_is_named_and_nothing_is_replaced(
    own_source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flip(part_of("demo_photos") / "shard.00000.mds")
    before = tree()
    text = own_source / "demo_photos.jsonl"
    text.write_bytes(text.read_bytes() + b"\n\n")
    assert main(["verify", "mix.toml", "--repair", "--num-workers", "1"]) == 2
    size = text.stat().st_size
    assert f"demo_photos.jsonl has {size:,} bytes, it had {size - 2:,}" in capfd.readouterr().err
    assert tree() == before


def test_a_medium_that_has_changed_beside_its_text_is_no_repair(
    own_source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flip(part_of("demo_photos") / "shard.00000.mds")
    before = tree()
    flip(next(path for path in sorted((own_source / "media" / "photos").iterdir())))
    assert main(["verify", "mix.toml", "--repair", "--num-workers", "1"]) == 2
    said = capfd.readouterr().err
    assert "it is not what the mix pins: shard.00000.mds, samples.parquet, media.parquet differ" in said
    assert tree() == before


def test_sources_that_have_changed_are_found_sample_by_sample(
    own_source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "mix.toml", "--sources", "--num-workers", "1"]) == 0
    media = sorted((own_source / "media" / "photos").iterdir())
    content = bytearray(media[0].read_bytes())
    content[-30] ^= 1
    media[0].write_bytes(content)
    media[1].unlink()
    capfd.readouterr()
    assert main(["verify", "mix.toml", "--sources", "--num-workers", "1"]) == 3
    found = capfd.readouterr().out.splitlines()
    assert all(line.startswith("source_changed: demo_photos/demo_photos.jsonl#") for line in found)
    assert any(line.endswith("image_0: not the content that was converted") for line in found)
    assert any(line.endswith("it was kept, it would be rejected (missing_media) now") for line in found)
    text = own_source / "demo_clipart.jsonl"
    text.write_bytes(text.read_bytes().partition(b"\n")[2])
    main(["verify", "mix.toml", "--sources", "--num-workers", "1"])
    assert f"source_changed: {part_of('demo_clipart').resolve()}: no part of demo_clipart" in capfd.readouterr().out


@pytest.mark.parametrize("flag", ["--repair", "--sources"])
def test_only_a_toml_names_sources(built: Path, flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "mixes/mix", flag]) == 2
    assert "give the TOML that names them as PATH" in capfd.readouterr().err
    assert not verify("mixes/mix").findings
