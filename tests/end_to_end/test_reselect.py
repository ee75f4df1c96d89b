"""Building again after a change of weights or selection: no source is asked, no shard touched."""

import json
from pathlib import Path

import pytest

from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_prep.cli import main as prep
from vlm_prep.known_sources import FILE
from vlm_train.make_tiny import make_tiny

SOURCES = ("one", "two")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model, two sources and their mix."""
    monkeypatch.chdir(tmp_path)
    make_tiny("qwen3_vl", tmp_path / "model")
    for name in SOURCES:
        write(name, 20)
    assert build() == 0
    return tmp_path


def write(name: str, number: int) -> None:
    lines = [
        {"messages": [{"role": "user", "content": f"{name} {n}"}, {"role": "assistant", "content": "yes"}]}
        for n in range(number)
    ]
    Path(f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def build(*arguments: str, weight: float = 1, extra: str = "") -> int:
    sources = "".join(f'[[mix.source]]\nname = "{name}"\npath = "{name}.jsonl"\n' for name in SOURCES)
    Path("mix.toml").write_text(
        f'[policy]\nmodel_name_or_path = "model"\nmodel_max_length = 512\n{sources}weight = {weight}\n{extra}'
    )
    return prep(["build-mix", "mix.toml", *arguments])


def draws() -> dict[str, int]:
    return {one.name: one.num_draws for one in read_manifest(current_mix(Path("mixes/mix"))).datasets}


def files_of_shards() -> dict[Path, tuple[int, int, int]]:
    """What changes of a file when it is written: not when it was read."""
    stats = {path: path.stat() for path in Path("shards").rglob("*") if path.is_file()}
    return {path: (one.st_ino, one.st_size, one.st_mtime_ns) for path, one in stats.items()}


def converted() -> int:
    return sum(one.num_converted for one in read_manifest(current_mix(Path("mixes/mix"))).datasets)


def test_other_weights_and_selections_need_no_source_and_touch_no_shard(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = files_of_shards()
    for name in SOURCES:
        Path(f"{name}.jsonl").write_text("no JSON any more")
    assert build(weight=3) == 0
    assert draws() == {"one": 10, "two": 30}
    assert build(weight=3, extra="[mix.select.max_samples]\none = 4\n") == 0
    assert draws() == {"one": 6, "two": 18}
    said = capsys.readouterr().err
    assert said.count("only weights or selection have changed") == 2
    assert files_of_shards() == shards
    assert prep(["verify", "mixes/mix"]) == 0


def test_a_selection_without_asking_is_the_mix_that_asking_gives(place: Path) -> None:
    assert build(weight=3) == 0
    quick = current_mix(Path("mixes/mix"))
    manifest = (quick / "manifest.json").read_bytes()
    assert build("--refresh", weight=3) == 0
    assert current_mix(Path("mixes/mix")) == quick
    assert (quick / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "mix.root=mixes"],  # the same again
        ["--set", "policy.model_max_length=400", "--set", "mix.seed=3"],
        ["--set", "mix.max_sample_bytes=1000000", "--set", "mix.seed=3"],
    ],
)
def test_other_builds_ask_the_sources(place: Path, arguments: list[str]) -> None:
    write("two", 30)
    assert build(*arguments) == 0
    assert converted() == 50


def test_refresh_asks_them_too(place: Path) -> None:
    write("two", 30)
    assert build(weight=3) == 0
    assert converted() == 40
    assert build("--refresh", weight=3) == 0
    assert converted() == 50


@pytest.mark.parametrize("damage", ["gone", "torn", "part away"])
def test_where_what_was_known_is_gone_the_sources_are_asked(place: Path, damage: str) -> None:
    known = Path("mixes/mix", FILE)
    if damage == "gone":
        known.unlink()
    elif damage == "torn":
        known.write_bytes(known.read_bytes()[:50])
    else:
        (part,) = Path("shards/two").glob("*/parts/*")
        part.rename("away")
    write("two", 30)
    assert build(weight=3) == 0
    assert converted() == 50
