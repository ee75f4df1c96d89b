"""Building again after a change of weights or selection: no source is asked, no shard touched."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from tests.small_mixes import write_conversations

from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_catalogs.sample import SHARD_FORMAT
from vlm_prep import convert, known_sources, parts
from vlm_prep.audit import run_audit
from vlm_prep.audit.findings import FOUND
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
    write_conversations(Path(f"{name}.jsonl"), [(f"{name} {n}", "yes") for n in range(number)])


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


@pytest.mark.parametrize("text", ["5", "null", '["asked", "selected_by", "sources"]', "no source", "part as number"])
def test_known_sources_that_are_no_such_record_are_no_traceback(place: Path, text: str) -> None:
    known = Path("mixes/mix", FILE)
    told = json.loads(known.read_bytes())
    if text == "no source":
        del told["sources"]["two"]
    elif text == "part as number":
        told["sources"]["two"]["parts"] = [5]
    known.write_text(json.dumps(told) if " " in text and text[0] != "[" else text)
    write("two", 30)
    assert build(weight=3) == 0
    assert converted() == 50
    assert json.loads(known.read_bytes()).keys() == told.keys()


def write_bad_source(how: str) -> None:
    """One that a build refuses: at conversion, or before."""
    if how == "rejected":
        Path("two.jsonl").write_text("no JSON any more\n" * 50)
    else:
        Path("two.jsonl").write_text("")


@pytest.mark.parametrize("how", ["rejected", "empty"])
def test_a_source_that_a_build_called_bad_is_not_used_after_a_change_of_weights(
    place: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    version = current_mix(Path("mixes/mix"))
    write_bad_source(how)
    assert build() == 2
    capsys.readouterr()
    assert build(weight=3) == 2
    assert "two" in capsys.readouterr().err
    assert current_mix(Path("mixes/mix")) == version
    write("two", 30)
    assert build(weight=3) == 0
    assert converted() == 50
    write("two", 40)
    assert build(weight=2) == 0  # and from here on quickly again
    assert converted() == 50


def test_shards_of_an_older_format_are_not_used_after_an_upgrade(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (known_sources, parts, convert):
        monkeypatch.setattr(module, "SHARD_FORMAT", SHARD_FORMAT + 1)
    assert build(weight=3) == 0
    for name in SOURCES:
        formats = {json.loads(path.read_bytes())["shard_format"] for path in Path("shards", name).rglob("part.json")}
        assert formats == {SHARD_FORMAT, SHARD_FORMAT + 1}
    pinned = read_manifest(current_mix(Path("mixes/mix"))).datasets
    layouts = [current_mix(Path("mixes/mix")) / one.shards for one in pinned]
    written = [json.loads(path.read_bytes())["shard_format"] for one in layouts for path in one.rglob("part.json")]
    assert written == [SHARD_FORMAT + 1] * len(SOURCES)


def write_i4_source() -> None:
    """A tar of 20 samples that its wdinfo.json says to be 25."""
    folder = Path("bucket/set")
    (folder / "texts").mkdir(parents=True)
    with tarfile.open(folder / "texts" / "0.tar", "w") as tar:
        for number in range(20):
            turns = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": "yes"}]
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(content := json.dumps(turns).encode())
            tar.addfile(member, io.BytesIO(content))
    wdinfo = {"root": "set", "data_list": ["0.tar"], "data_list_key_count": [25], "total_key_count": 25}
    (folder / "wdinfo.json").write_text(json.dumps(wdinfo))
    Path("listed.py").write_text(
        "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
        "DATAINFO = {'set': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'],"
        " media_keys=None)}\nweights = {'set': 1}\n"
    )
    Path("i4.toml").write_text(
        '[policy]\nmodel_name_or_path = "model"\nmodel_max_length = 512\n[custom]\nuse_i4 = true\n'
        'i4_data_source = "listed.weights"\n[mix]\ni4_root = "bucket"\nnum_workers = 1\n'
    )


def test_what_wdinfo_states_is_not_erased_by_another_seed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_i4_source()
    assert prep(["build-mix", "i4.toml"]) == 0
    first = current_mix(Path("mixes/i4"))
    (version,) = Path("shards/set").glob("*/sources/*.json")
    content = version.read_bytes()
    assert 25 in json.loads(content)["stated_counts"].values()
    capsys.readouterr()
    assert prep(["build-mix", "i4.toml", "--set", "mix.seed=3"]) == 0
    assert "only weights or selection have changed" in capsys.readouterr().err
    assert version.read_bytes() == content
    for mix in (first, current_mix(Path("mixes/i4"))):
        (found,) = [one for one in run_audit(str(mix)).findings if one.name == "wdinfo_counts"]
        assert found.status == FOUND
