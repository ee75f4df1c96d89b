"""Where a build works: scratch, memory and room on the disk are as the TOML says, or refused early."""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.source import FileSource
from vlm_prep.build import build_mix
from vlm_prep.build_plan import plan_build
from vlm_prep.disk_room import check_room, fetched_bytes
from vlm_prep.dry_run import look
from vlm_prep.estimate import Estimate, estimate
from vlm_prep.part_store import LocalStore
from vlm_prep.parts import PartInput, plan_part
from vlm_prep.raw_sample import Limits
from vlm_prep.select import open_index
from vlm_prep.source_plan import SourcePlan
from vlm_prep.workplace import Workplace, memory_limit, workplace

GIB = 1 << 30
LIMITS = Limits(max_sample_bytes=1 << 28)


def of_size(name: str, num_bytes: int) -> Estimate:
    return Estimate(name=name, bytes=num_bytes, seconds=None, rejected=Counter())


def memory(text: str) -> int | None:
    return memory_limit(load_config(Path("mix.toml"), overrides=(f"mix.max_memory={text!r}",)))


def test_sizes_are_read_as_people_write_them(built: Path) -> None:
    assert memory_limit(load_config(Path("mix.toml"))) is None
    assert [memory(text) for text in ("8GB", "1.5 GiB", "900M", "300000000")] == [
        8 * GIB,
        3 * GIB // 2,
        900 << 20,
        300_000_000,
    ]


@pytest.mark.parametrize(
    ("text", "problem"), [("lots", "expected a size such as '8GB'"), ("10MB", "needs at least '256MB'")]
)
def test_a_memory_that_is_no_size_or_too_little_is_refused(built: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"--set: mix.max_memory: .*{problem}"):
        memory(text)


@pytest.mark.parametrize(
    ("max_memory", "asked", "expected"), [(None, 7, 7), (4 * GIB, 7, 4), (4 * GIB, 2, 2), (GIB // 2, 7, 1)]
)
def test_a_process_is_allowed_for_each_gigabyte(max_memory: int | None, asked: int, expected: int) -> None:
    place = Workplace(staging=Path(), scratch=Path(), max_memory=max_memory, num_workers=asked)
    assert place.num_processes(is_small=False) == expected


def test_the_index_keeps_to_its_memory_and_spills_to_scratch(tmp_path: Path) -> None:
    with open_index(tmp_path, max_bytes=64 << 20) as index:
        index.execute("create table t as select range as a, md5(range::varchar) as b from range(1_200_000)")
        index.execute("create table u as select * from t order by b")
        assert index.execute("select current_setting('memory_limit')").fetchall() == [("64.0 MiB",)]
        assert sum(path.stat().st_size for path in (tmp_path / "duckdb").iterdir()) > 1 << 20


def test_the_scratch_folder_is_where_the_toml_says_and_is_empty_afterwards(built: Path, tmp_path: Path) -> None:
    config = load_config(Path("mix.toml"), overrides=(f"mix.scratch='{tmp_path / 'fast'}'", "mix.max_memory='2GB'"))
    with workplace(config) as place:
        assert place.scratch.is_relative_to(tmp_path / "fast")
        assert place.staging.is_relative_to("shards")
        assert place.index_memory == 3 * GIB // 2
        assert place.scratch.is_dir()
    assert not list((tmp_path / "fast" / ".staging").iterdir())


def test_scratch_and_memory_change_no_byte_of_a_mix(built: Path, tmp_path: Path) -> None:
    def content() -> dict[str, str]:
        files = [path for name in ("shards", "mixes") for path in Path(name).rglob("*")]
        return {str(path): file_hash(path) for path in files if path.is_file() and path.name != "build_log.jsonl"}

    condition = "mix.select.where={any = 'num_images >= 0'}"
    build_mix(load_config(Path("mix.toml"), overrides=(condition,)))
    before = content()
    shutil.rmtree("shards")
    shutil.rmtree("mixes/mix")
    overrides = (condition, f"mix.scratch='{tmp_path / 'fast'}'", "mix.max_memory='300MB'")
    build_mix(load_config(Path("mix.toml")))
    build_mix(load_config(Path("mix.toml"), overrides=overrides))
    assert content() == before


def test_the_estimate_is_near_what_is_written(built: Path) -> None:
    sizes = {
        folder.name: sum(f.stat().st_size for f in folder.glob("*/parts/*/*") if f.is_file())
        for folder in Path("shards").iterdir()
    }
    shutil.rmtree("shards")
    found = {
        plan.source.name: estimate(plan, limits=LIMITS) for plan in plan_build(load_config(Path("mix.toml"))).sources
    }
    for name, one in found.items():
        assert one.bytes == pytest.approx(sizes[name], rel=0.15), name


def test_of_a_long_file_only_the_first_samples_are_read_and_scaled(built: Path) -> None:
    line = Path("long.jsonl")
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "%s"}]}\n' % ("b" * 1000)
    line.write_text(row * 5000)
    Path("mix.toml").write_text(
        Path("mix.toml").read_text().partition("[[mix")[0] + "[[mix.source]]\nname='l'\npath='long.jsonl'\n"
    )
    (plan,) = plan_build(load_config(Path("mix.toml"))).sources
    found = estimate(plan, limits=LIMITS, with_time=True)
    assert found.num_probed == 32
    assert found.bytes == pytest.approx(5000 * 1900, rel=0.2)
    assert found.seconds is not None
    assert 0 < found.seconds < 60
    build_mix(load_config(Path("mix.toml")))
    assert estimate(plan, limits=LIMITS) == Estimate(name="l", bytes=0, seconds=0.0)


def test_a_disk_without_room_is_named_with_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    estimates = [of_size("small", 10**9), of_size("large", 8 * 10**9)]
    check_room(estimates, shards=tmp_path, scratch=tmp_path / "not" / "there", fetched=10**9)
    with pytest.raises(
        StorageError, match=r"about 11 GB are to be written here \(large 8 GB, small 1 GB\), 10 GB are free"
    ):
        check_room(estimates, shards=tmp_path, scratch=tmp_path, fetched=2 * 10**9)


def test_scratch_holds_one_fetched_part_for_each_worker() -> None:
    def part(path: str, size: int) -> PartInput:
        return PartInput(name=path, path=path, bytes=size, content_id=path)

    source = FileSource(name="a", weight=1.0, path="x", format="webdataset", origin="here")
    parts = tuple(
        plan_part([part(path, size)])
        for path, size in [("s3://b/1", 5), ("s3://b/2", 7), ("/local", 90), ("s3://b/3", 1)]
    )
    nowhere = Path("none")
    store = LocalStore(nowhere)
    plan = SourcePlan(source=source, file_format="webdataset", store=store, layout=nowhere, parts=parts)
    assert [fetched_bytes([plan], num_workers=number) for number in (1, 2, 9)] == [7, 12, 13]


@pytest.mark.parametrize("key", ["shards", "root"])
def test_what_a_build_writes_must_not_lie_in_a_source(built: Path, key: str) -> None:
    Path("own").mkdir()
    line = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    Path("own/a.jsonl").write_text(json.dumps(line))
    with Path("mix.toml").open("a") as file:
        file.write("[[mix.source]]\nname = 'own'\npath = 'own'\n")
    with pytest.raises(ConfigError, match=f"own: mix.{key} own/out lies in the source own"):
        plan_build(load_config(Path("mix.toml"), overrides=(f"mix.{key}='own/out'",)))


@pytest.mark.parametrize("key", ["mix.shards", "mix.root", "mix.scratch"])
@pytest.mark.parametrize("what", ["a file", "a link to itself", "read-only"])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(
    key: str, what: str, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "a link to itself":
        Path("disk").symlink_to("disk")
    elif what == "a file":
        Path("disk").touch()
    else:
        Path("disk").mkdir()
        real = os.access  # root, who may run this, is refused nothing but by a read-only file system
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "disk" and real(path, mode))
    config = load_config(Path("mix.toml"), overrides=(f"{key}='disk/there'",))
    before = sorted(built.rglob("*"))
    says = "disk/there.*: cannot write here: .*disk is read-only" if what == "read-only" else "disk is no folder"
    with pytest.raises(StorageError, match=says):
        build_mix(config)
    assert any(re.search(says, problem) for problem in look(config).problems)
    assert sorted(built.rglob("*")) == before
