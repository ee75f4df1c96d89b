"""``vlm-prep build-mix`` on the demo data: cached, repeatable to the byte, whole after any interruption."""

import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from vlm_catalogs.config import load_config, mix_settings
from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import read_part
from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_catalogs.sample import SHARD_FORMAT
from vlm_catalogs.shard_reader import ShardReader
from vlm_catalogs.tables import LENGTHS, MEDIA, SAMPLES, SELECTION, TEXTS
from vlm_prep.added_tables import check_table
from vlm_prep.build import build_mix
from vlm_prep.part_store import LocalStore
from vlm_train.draws import OrderSettings
from vlm_train.epoch import plan_epoch
from vlm_train.make_tiny import make_tiny
from vlm_train.open_mix import datasets_to_draw, open_mix

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "tests" / "demo_data"
GOLDEN = REPOSITORY / "tests" / "golden" / "demo_shards.json"
COMMAND = Path(sys.executable).parent / "vlm-prep"
DATASETS = ("demo_clipart", "demo_photos", "demo_video")

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3_vl"
    make_tiny("qwen3_vl", folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the demo data in it, and its TOMLs ``normal.toml`` and ``i4.toml``."""
    for form in ("jsonl", "i4", "llava"):
        shutil.copytree(DEMO / form, tmp_path / form)
    shutil.copytree(REPOSITORY / "catalogs", tmp_path / "catalogs", ignore=shutil.ignore_patterns("vlm_catalogs"))
    head = f'[policy]\nmodel_name_or_path = "{tiny}"\nmodel_max_length = 1024\n[custom]\ninclude_video = true\n'
    sources = [f'[[mix.source]]\nname = "{name}"\npath = "jsonl/{name}.jsonl"\n' for name in DATASETS]
    (tmp_path / "normal.toml").write_text(head + "".join(sources))
    (tmp_path / "i4.toml").write_text(head + 'use_i4 = true\n[mix]\ni4_root = "i4"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def build(place: Path) -> Build:
    """(name of a TOML, *settings) -> the mix version."""

    def run(name: str, *overrides: str) -> Path:
        return build_mix(load_config(Path(f"{name}.toml"), overrides=overrides))

    return run


def tree(folder: Path) -> dict[str, str]:
    """Every file that stays, by content; clocks live only in the build log."""
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "build_log.jsonl"
    }


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def samples_of(version: Path) -> dict[str, list[Any]]:
    """Dataset -> samples as training reads them, in order."""
    found: dict[str, list[Any]] = {}
    for dataset in read_manifest(version).datasets:
        for part in dataset.parts:
            for shard in sorted((version / dataset.shards / "parts" / part.name).glob("shard.*.mds")):
                reader = ShardReader(shard)
                found.setdefault(dataset.name, []).extend(reader.read(index) for index in range(reader.num_samples))
    return found


def test_the_same_samples_have_the_same_bytes_from_every_form(build: Build) -> None:
    from_i4, from_jsonl = samples_of(build("i4")), samples_of(build("normal"))
    assert sorted(from_i4) == sorted(from_jsonl) == sorted(DATASETS)
    for name in DATASETS:
        stored = [
            sorted((json.dumps([s.messages, s.alternatives]), bytes(s.media), s.media_table) for s in samples[name])
            for samples in (from_i4, from_jsonl)
        ]
        assert stored[0] == stored[1]
        assert len(stored[0]) > 10


def test_written_bytes_change_only_with_shard_format(build: Build) -> None:
    """The golden shards of the demo data: when these differ, raise SHARD_FORMAT and write the golden file anew."""
    version = build("i4")
    records = [
        read_part(version / dataset.shards / "parts" / part.name)
        for dataset in read_manifest(version).datasets
        for part in dataset.parts
    ]
    hashes = {record.dataset: [shard.xxh3_128 for shard in record.shards] for record in records}
    assert {"shard_format": SHARD_FORMAT, "shards": hashes} == json.loads(GOLDEN.read_text())


def test_a_second_build_touches_no_file_and_finds_the_same_mix(build: Build, place: Path) -> None:
    """What the sources said stands apart: it is gone while they are asked, and then the same again."""
    version = build("normal")
    asked = place / "mixes" / "normal" / "sources.json"
    said = asked.read_bytes()
    before = times(place / "shards"), times(place / "mixes")
    assert build("normal") == version == current_mix(Path("mixes/normal"))
    assert asked.read_bytes() == said
    after = times(place / "shards"), times(place / "mixes")
    for _, mixes in (before, after):
        del mixes[str(asked)]
    assert after == before


def test_weights_of_tokens_and_of_repeats_reach_the_epochs(build: Build, place: Path) -> None:
    version = build("normal", "mix.weight_unit='tokens'", "mix.epoch_tokens=30000")
    assert [dataset.draw_tokens for dataset in read_manifest(version).datasets] == [10000] * 3
    config = load_config(
        place / "normal.toml",
        overrides=("mix.weight_unit='tokens'", "mix.epoch_tokens=30000", "policy.model_max_length=1024"),
    )
    drawn = datasets_to_draw(open_mix(config))
    for epoch in range(2):
        table = plan_epoch(drawn, epoch=epoch, order=OrderSettings(seed=0, rows_per_step=4, pack_tokens=1024))
        for one in drawn:
            longest = dict(zip(*(one.samples[key].to_pylist() for key in ("sample_key", "total_tokens")), strict=True))
            keys = table.filter(pc.equal(table["dataset"], one.name))["sample_key"].to_pylist()
            # Shares go by each sample's longest conversation; the epoch may show a shorter one.
            assert abs(sum(longest[key] for key in keys) - 10000) <= max(longest.values())
    repeated = read_manifest(build("normal", "mix.weight_unit='repeats'"))
    assert all(dataset.num_draws == dataset.num_selected for dataset in repeated.datasets)


def test_an_epoch_size_without_meaning_is_refused(build: Build) -> None:
    with pytest.raises(ConfigError, match=r"epoch_samples has no effect with mix\.weight_unit = 'tokens'"):
        build("normal", "mix.weight_unit='tokens'", "mix.epoch_samples=80")
    with pytest.raises(ConfigError, match=r"epoch_tokens has no effect with mix\.weight_unit = 'samples'"):
        build("normal", "mix.epoch_tokens=80")


def test_other_weights_convert_and_measure_nothing(
    build: Build, place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    version = build("normal")
    shards = times(place / "shards")
    capfd.readouterr()
    text = (place / "normal.toml").read_text()
    (place / "normal.toml").write_text(
        text.replace('path = "jsonl/demo_photos', 'weight = 6\npath = "jsonl/demo_photos')
    )
    other = build("normal", "mix.epoch_samples=80")
    assert other != version
    assert times(place / "shards") == shards
    assert {dataset.name: dataset.num_draws for dataset in read_manifest(other).datasets} == {
        "demo_clipart": 10,
        "demo_photos": 60,
        "demo_video": 10,
    }
    err = capfd.readouterr().err
    assert "convert: 3 parts, all cached" in err
    assert "measure: 3 parts, all cached" in err
    assert version.is_dir()
    assert current_mix(Path("mixes/normal")) == other


def test_one_and_two_workers_write_the_same_bytes(build: Build, place: Path) -> None:
    build("i4", "mix.num_workers=1")
    alone = tree(place / "shards"), tree(place / "mixes")
    shutil.rmtree("shards")
    shutil.rmtree("mixes")
    build("i4", "mix.num_workers=2")
    assert (tree(place / "shards"), tree(place / "mixes")) == alone


def test_another_place_gives_the_same_bytes(build: Build, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build("i4")
    here = tree(place / "shards"), tree(place / "mixes")
    there = place / "elsewhere" / "deeper"
    there.mkdir(parents=True)
    for name in ("i4", "catalogs", "i4.toml"):
        (place / name).rename(there / name)
    monkeypatch.chdir(there)
    build("i4")
    assert (tree(there / "shards"), tree(there / "mixes")) == here
    stored = b"".join(path.read_bytes() for path in there.rglob("*") if path.suffix in (".json", ".parquet"))
    assert str(place).encode() not in stored


def test_tables_have_exactly_their_schemas_and_add_up(build: Build, place: Path) -> None:
    version = build("normal")
    manifest = read_manifest(version)
    assert manifest.settings == mix_settings(load_config(Path("normal.toml")))
    assert pq.read_schema(version / "selection.parquet").equals(SELECTION)
    selection = pq.read_table(version / "selection.parquet")
    assert selection.num_rows == sum(dataset.num_converted for dataset in manifest.datasets) == manifest.epoch_samples
    for dataset in manifest.datasets:
        layout = version / dataset.shards
        for part in dataset.parts:
            folder = layout / "parts" / part.name
            for name, schema in (("samples", SAMPLES), ("media", MEDIA), ("texts", TEXTS)):
                assert pq.read_schema(folder / f"{name}.parquet").equals(schema)
            assert pq.read_schema(folder / part.lengths).equals(LENGTHS)
            assert file_hash(folder / part.lengths) == part.lengths_xxh3_128
            assert file_hash(folder / "part.json") == part.part_json_xxh3_128
            for row in pq.read_table(folder / "samples.parquet").to_pylist():
                content = (folder / f"shard.{row['shard']:05d}.mds").read_bytes()[row["byte_begin"] : row["byte_end"]]
                assert content.endswith(row["sample_id"].encode())


def test_a_killed_build_leaves_nothing_half_and_the_next_one_ends_the_same(place: Path) -> None:
    """The rename of the third part is held up, and the build killed there; then the same command runs to its end."""
    script = (
        "import os, pathlib, signal, sys\n"
        "from vlm_prep import staging\n"
        "rename, seen = pathlib.Path.rename, []\n"
        "def stop_at_third(self, target):\n"
        "    seen.append(target)\n"
        "    if len(seen) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rename(self, target)\n"
        "pathlib.Path.rename = stop_at_third\n"
        "from vlm_prep.cli import main\n"
        "sys.exit(main(['build-mix', 'i4.toml']))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(Path("shards").glob("*/*/parts/*/part.json"))) == 2
    assert list(Path("shards/.staging").glob("*/*/shard.*.mds"))
    assert not Path("mixes").exists()
    subprocess.run([COMMAND, "build-mix", "i4.toml"], check=True, capture_output=True)
    assert not list(Path("shards/.staging").iterdir())
    continued = tree(place / "shards"), tree(place / "mixes")
    shutil.rmtree("shards")
    shutil.rmtree("mixes")
    subprocess.run([COMMAND, "build-mix", "i4.toml"], check=True, capture_output=True)
    assert (tree(place / "shards"), tree(place / "mixes")) == continued


def test_workers_of_a_killed_build_end_with_it(place: Path) -> None:
    script = (
        "import os, time\n"
        "from vlm_prep.workers import run_tasks\n"
        "def announce_and_wait(seconds):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(seconds)\n"
        "if __name__ == '__main__':\n"
        "    run_tasks(announce_and_wait, [600.0, 600.0], num_workers=2, on_done=print)\n"
    )
    Path("wait.py").write_text(script)
    with subprocess.Popen([sys.executable, "wait.py"], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        workers = [os.pidfd_open(int(main.stdout.readline())) for _ in range(2)]
        main.kill()
        for worker in workers:
            ended, _, _ = select.select([worker], [], [], 60)
            assert ended, "a worker outlived the build"
            os.close(worker)


def test_a_source_with_too_many_rejections_fails_and_leaves_no_mix(build: Build, place: Path) -> None:
    for path in sorted(Path("jsonl/media/photos").iterdir())[:11]:
        path.rename(path.with_suffix(".away"))
    with pytest.raises(DataError, match=r"demo_photos: 1\d of 17 samples are rejected\n.*x missing_media: ") as error:
        build("normal")
    assert "max_rejected_fraction" in str(error.value)
    assert "demo_clipart" not in str(error.value)
    assert not Path("mixes/normal").exists()
    for path in Path("jsonl/media/photos").glob("*.away"):
        (original,) = (DEMO / "jsonl" / "media" / "photos").glob(f"{path.stem}.*")
        path.rename(path.with_name(original.name))
    # The media stand where they were again: what was rejected for them is converted, not remembered.
    manifest = read_manifest(build("normal"))
    assert [dataset.num_rejected for dataset in manifest.datasets] == [0, 0, 0]


def test_few_rejections_are_counted_and_listed(build: Build, capfd: pytest.CaptureFixture[str]) -> None:
    with Path("jsonl/demo_photos.jsonl").open("a") as file:
        file.write('{"messages": 7}\n')
    version = build("normal")
    (photos,) = (dataset for dataset in read_manifest(version).datasets if dataset.name == "demo_photos")
    assert (photos.num_converted, photos.num_rejected, photos.num_selected) == (17, 1, 17)
    samples = str(version / photos.shards / "parts" / photos.parts[0].name / "samples.parquet")
    rows = duckdb.sql("from read_parquet($file) where status = 'rejected'", params={"file": samples}).fetchall()
    assert [row[1] for row in rows] == ["demo_photos.jsonl#000000017"]
    assert "1 x bad_conversation" in capfd.readouterr().err


def test_videos_long_samples_and_fractions_leave_the_selection_with_a_reason(build: Build, place: Path) -> None:
    text = (place / "normal.toml").read_text()
    fraction = text.replace('path = "jsonl/demo_photos', 'repeat_time = 0.5\npath = "jsonl/demo_photos')
    (place / "normal.toml").write_text(fraction.replace("include_video = true", "include_video = false"))
    table = pq.read_table(build("normal") / "selection.parquet").to_pylist()
    assert all(row["selected"] == (row["reason"] is None) for row in table)
    reasons = {(row["dataset"], row["reason"]) for row in table}
    assert ("demo_video", "video_not_included") in reasons
    half = [row for row in table if row["dataset"] == "demo_photos" and row["reason"] == "not_in_subsample"]
    assert len(half) in (8, 9)
    lengths = sorted(row["total_tokens"] for row in table)
    limit = lengths[len(lengths) // 2]
    shorter = pq.read_table(build("normal", f"policy.model_max_length={limit}") / "selection.parquet").to_pylist()
    assert any(row["reason"] == "longer_than_model_max_length" for row in shorter)
    assert all(row["total_tokens"] <= limit for row in shorter if row["selected"])


def test_repeats_count_for_the_size_of_the_epoch(build: Build, place: Path) -> None:
    text = (place / "normal.toml").read_text()
    (place / "normal.toml").write_text(
        text.replace('path = "jsonl/demo_photos', 'repeat_time = 3\npath = "jsonl/demo_photos')
    )
    manifest = read_manifest(build("normal"))
    assert manifest.epoch_samples == 37 + 3 * 17 + 14
    assert {dataset.num_draws for dataset in manifest.datasets} == {34}


def test_a_dataset_with_nothing_selected_is_an_error_that_names_it(build: Build, place: Path) -> None:
    with pytest.raises(DataError, match="demo_clipart: no sample is left to draw from"):
        build("normal", "policy.model_max_length=8")
    assert not (place / "mixes" / "normal" / "current.json").exists()


def test_a_source_with_nothing_in_it_is_an_error_that_names_it(build: Build) -> None:
    Path("jsonl/demo_photos.jsonl").write_text("")
    with pytest.raises(DataError, match=r"normal\.toml:\d+: demo_photos: there is nothing in it"):
        build("normal")


def test_two_builds_at_once_end_with_one_mix(place: Path) -> None:
    runs = [subprocess.Popen([COMMAND, "build-mix", "i4.toml"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert said[0] == said[1]
    assert not list(Path("shards/.staging").iterdir())
    assert len(samples_of(current_mix(Path("mixes/i4")))["demo_clipart"]) == 37


def test_i4_and_normal_sources_stand_in_one_mix(build: Build, place: Path) -> None:
    with (place / "i4.toml").open("a") as file:
        file.write('[[mix.source]]\nname = "llava"\npath = "llava"\n')
    manifest = read_manifest(build("i4"))
    assert [dataset.format for dataset in manifest.datasets] == ["i4", "i4", "i4", "llava"]
    assert list(manifest.encoding.settings) == ["i4", "normal"]
    assert len({dataset.parts[0].lengths for dataset in manifest.datasets}) == 2


def test_a_mix_finds_shards_that_have_moved(build: Build, place: Path) -> None:
    version = build("normal")
    Path("shards").rename("other")
    assert build("normal", "mix.shards='other'") == version
    assert len(samples_of(version)["demo_photos"]) == 17


def test_a_damaged_part_is_named_and_not_used(build: Build) -> None:
    build("normal")
    (shard,) = Path("shards/demo_photos").glob("*/parts/*/shard.00000.mds")
    os.truncate(shard, 1000)
    with pytest.raises(DataError, match=r"shard\.00000\.mds: expected .* bytes; the part is damaged"):
        build("normal")


def flip_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "at", "advice"),
    [
        (
            "shards/demo_photos/*/parts/*/samples.parquet",
            200,
            "samples.parquet: its content is not what part.json says",
        ),
        ("shards/demo_photos/*/parts/*/samples.parquet", -5, "samples.parquet: .* move its folder away"),
        ("shards/demo_photos/*/parts/*/part.json", 3, "part.json: .* move its folder away"),
        ("shards/demo_photos/*/parts/*/lengths/*.parquet", 300, r"(?s)[0-9a-f]{32}\.parquet: damaged: .* move it away"),
        ("shards/demo_photos/*/parts/*/lengths/*.parquet", -5, r"(?s)[0-9a-f]{32}\.parquet: damaged: .* move it away"),
        ("mixes/normal/*/selection.parquet", 200, "selection.parquet: missing or damaged; move .* away"),
        (
            "mixes/normal/*/manifest.json",
            0,
            "manifest.json: damaged .* move its folder away .*\nits folder is mixes/normal/[0-9a-f]{32}$",
        ),
    ],
)
def test_one_flipped_byte_before_a_rebuild_is_named_with_what_to_do(
    build: Build, file: str, at: int, advice: str
) -> None:
    build("normal")
    (path,) = Path().glob(file)
    flip_byte(path, at)
    with pytest.raises(DataError, match=advice):
        build("normal")


def test_no_flipped_byte_in_the_pages_of_a_lengths_file_changes_what_is_read(build: Build) -> None:
    build("normal")
    (path,) = Path("shards/demo_photos").glob("*/parts/*/lengths/*.parquet")
    whole, table = path.read_bytes(), pq.read_table(path)
    (footer_bytes,) = struct.unpack("<I", whole[-8:-4])
    for at in range(4, len(whole) - 8 - footer_bytes, 3):
        flip_byte(path, at)
        try:
            check_table(path, LocalStore(Path("shards")))
        except DataError:
            continue
        else:
            assert pq.read_table(path).equals(table), at
        finally:
            path.write_bytes(whole)


def test_texts_that_have_changed_are_not_measured(build: Build, tmp_path: Path) -> None:
    build("normal")
    (texts,) = Path("shards/demo_photos").glob("*/parts/*/texts.parquet")
    flip_byte(texts, 200)
    with pytest.raises(DataError, match=r"texts\.parquet: its content is not what part.json says"):
        build("normal", "policy.model_max_length=900")


@pytest.mark.parametrize("limit", [600, 1500, 4000])
def test_a_disk_that_is_full_at_any_moment_is_an_error_of_the_user(place: Path, limit: int) -> None:
    """A limit on file sizes stands for the full disk: it stops shards and tables."""
    row = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    Path("one.jsonl").write_text(row)
    head = (place / "normal.toml").read_text().partition("[[mix")[0]
    (place / "one.toml").write_text(head + '[[mix.source]]\nname = "o"\npath = "one.jsonl"\n')
    script = (
        "import resource, signal, sys\n"
        "from vlm_prep.cli import main\n"
        "import vlm_prep.build\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.exit(main(['build-mix', 'one.toml']))\n"
    )
    full = subprocess.run([sys.executable, "-B", "-c", script], capture_output=True, text=True, check=False)
    assert (full.returncode, "Traceback" in full.stderr) == (2, False), full.stderr
    assert "File too large" in full.stderr
    assert not list(Path().glob("mixes/one/current.json"))


def test_a_dry_run_prints_the_plan_and_writes_nothing(place: Path) -> None:
    before = tree(place)
    run = subprocess.run([COMMAND, "build-mix", "i4.toml", "--dry-run"], capture_output=True, text=True, check=True)
    head, *rows, totals = run.stdout.splitlines()
    assert head.split() == [
        "dataset",
        "format",
        "MB",
        "parts",
        "cached",
        "weight",
        "share",
        "MB",
        "to",
        "write",
        "CPU",
        "s",
    ]
    assert [row.split()[:2] for row in rows] == [[name, "i4"] for name in DATASETS]
    assert re.match(
        r"to convert: 3 parts, about 0\.\d MB to write, [\d,]+ MB free, under 1 s \(63 samples were", totals
    )
    assert tree(place) == before


def test_a_dry_run_names_every_problem_and_writes_nothing(place: Path) -> None:
    Path("jsonl/demo_photos.jsonl").write_text("")
    rows = Path("jsonl/demo_video.jsonl").read_text()
    Path("jsonl/demo_video.jsonl").write_text("{\n" + rows)
    before = tree(place)
    command = [COMMAND, "build-mix", "normal.toml", "--dry-run", "--max-memory", "1KB"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\nproblem: ") == 2
    assert "demo_photos: there is nothing in it" in run.stderr
    assert "--set: mix.max_memory: '1KB' is too little" in run.stderr
    assert "note: demo_video: of 15 samples read here 1 would be rejected: unreadable_json" in run.stderr
    assert [row.split()[0] for row in run.stdout.splitlines()] == ["dataset", "demo_clipart", "demo_video", "to"]
    assert tree(place) == before


def test_a_source_that_changed_is_named_and_only_its_parts_are_converted_anew(
    build: Build, capfd: pytest.CaptureFixture[str]
) -> None:
    first = build("normal")
    assert "since the last build" not in capfd.readouterr().err
    before = times(Path("shards"))
    path = Path("jsonl/demo_photos.jsonl")
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    second = build("normal")
    said = capfd.readouterr().err
    change = (
        "demo_photos: has changed since the last build (changed: demo_photos.jsonl); 1 of 1 parts are converted anew"
    )
    assert [line for line in said.splitlines() if "since the last build" in line] == [f"note: {change}"]
    assert "convert: 3 parts, 2 cached" in said
    assert second != first
    changed = {file for file, time in times(Path("shards")).items() if before.get(file) != time}
    assert changed
    assert all("demo_photos" in Path(file).parts for file in changed)
    assert build("normal") == second
    assert "since the last build" not in capfd.readouterr().err


def test_the_command_prints_shares_and_the_mix_on_stdout(place: Path) -> None:
    run = subprocess.run(
        [COMMAND, "build-mix", "normal.toml", "--num-workers", "1", "--set", "mix.epoch_samples=7"],
        capture_output=True,
        text=True,
        check=True,
    )
    *table, mix = run.stdout.splitlines()
    assert [line.split()[-2:] for line in table] == [
        ["asked", "realised"],
        ["33.3333%", "42.8571%"],
        ["33.3333%", "28.5714%"],
        ["33.3333%", "28.5714%"],
    ]
    assert Path(mix.removeprefix("mix: ")) == current_mix(Path("mixes/normal"))
    assert "Qwen3-VL on normal data" in run.stderr


def test_wrong_input_is_exit_code_2_with_one_message(place: Path) -> None:
    shutil.rmtree("i4/demo_photos/media")
    run = subprocess.run([COMMAND, "build-mix", "i4.toml"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "tars of demo_photos are not there" in run.stderr
    assert "Traceback" not in run.stderr
    assert not Path("mixes").exists()
