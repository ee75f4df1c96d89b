"""``vlm-prep verify``: a sound tree has no finding; every planted fault is found, under its name, at its place."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import PART_FILE, StoredFile, read_part
from vlm_catalogs.manifest import current_mix, manifest_text, read_manifest
from vlm_prep.cli import main
from vlm_prep.mix import fingerprint
from vlm_prep.verify import verify

COMMAND = Path(sys.executable).parent / "vlm-prep"
DATASETS = ("demo_clipart", "demo_photos", "demo_video")


def part_of(dataset: str) -> Path:
    (folder,) = Path("shards", dataset).glob("*/parts/*")
    return folder


def found(path: str = "shards", *, num_workers: int = 1) -> set[tuple[str, str]]:
    """The (problem, file name) of every finding."""
    return {(finding.problem, Path(finding.path).name) for finding in verify(path, num_workers=num_workers).findings}


def rewrite_table(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of a table, and have part.json say that it should be so."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    record_anew(path)


def record_anew(path: Path) -> None:
    """Have part.json record the file as it is now."""
    record = read_part(path.parent)
    now = StoredFile(name=path.name, bytes=path.stat().st_size, xxh3_128=file_hash(path))
    files = {
        kind: tuple(now if file.name == path.name else file for file in getattr(record, kind))
        for kind in ("shards", "tables")
    }
    (path.parent / PART_FILE).write_text(replace(record, **files).as_json())


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def exchange(one: Path, other: Path) -> None:
    one.rename("between")
    other.rename(one)
    Path("between").rename(other)


@pytest.mark.parametrize("path", ["shards", "shards/demo_photos", "mixes/mix", "mix.toml"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_sound_tree_has_no_finding(built: Path, path: str, num_workers: int) -> None:
    verified = verify(path, num_workers=num_workers)
    assert verified.findings == ()
    assert verified.num_samples == (17 if path.endswith("photos") else 68)


@pytest.mark.parametrize("path", ["shards", "mixes/mix"])
def test_a_flipped_bit_in_a_medium_is_found_with_its_sample(built: Path, path: str) -> None:
    shard = part_of("demo_photos") / "shard.00000.mds"
    row = pq.read_table(part_of("demo_photos") / "samples.parquet").to_pylist()[3]
    flip(shard, (row["byte_begin"] + row["byte_end"]) // 2)
    findings = verify(path, num_workers=1).findings
    assert {(finding.problem, Path(finding.path).resolve()) for finding in findings} == {("damaged", shard.resolve())}
    assert any(f"({row['sample_id']}): image_0 is not what its hash says" in finding.detail for finding in findings)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", ["shard.00000.mds", "samples.parquet", "media.parquet", "texts.parquet"])
def test_a_flipped_bit_anywhere_is_found(built: Path, dataset: str, name: str) -> None:
    path = part_of(dataset) / name
    for at in (0, path.stat().st_size // 3, path.stat().st_size - 1):
        flip(path, at)
        assert ("damaged", name) in found()
        flip(path, at)
    assert found() == set()


def test_a_truncated_shard_is_found(built: Path) -> None:
    shard = part_of("demo_clipart") / "shard.00000.mds"
    os.truncate(shard, shard.stat().st_size - 1)
    assert found() == {("truncated", shard.name), ("unreadable", shard.name)}


@pytest.mark.parametrize("name", ["shard.00000.mds", "samples.parquet", "part.json"])
def test_a_missing_file_is_found(built: Path, name: str) -> None:
    (part_of("demo_clipart") / name).unlink()
    assert ("missing", name) in found()
    assert {problem for problem, _ in found()} == {"missing"}
    assert ("missing", name) in found("mixes/mix")


def test_a_missing_part_is_found(built: Path) -> None:
    part = part_of("demo_video")
    shutil.rmtree(part)
    assert found() == {("missing", part.name)}
    assert ("missing", PART_FILE) in found("mixes/mix")


def test_an_extra_file_is_found(built: Path) -> None:
    (part_of("demo_clipart") / "shard.00001.mds").write_bytes(b"x")
    (part_of("demo_clipart").parents[1] / "notes.txt").write_text("x")
    assert found() == {("extra", "shard.00001.mds"), ("extra", "notes.txt")}


@pytest.mark.parametrize("path", ["shards", "mixes/mix"])
def test_an_extra_file_among_lengths_or_facts_is_found(built: Path, path: str) -> None:
    part = part_of("demo_clipart")
    (part / "facts").mkdir()
    names = ("lengths/notes.txt", "lengths/0123.parquet", "facts/notes.txt", "facts/decoded-99.parquet")
    for name in names:
        (part / name).write_bytes(b"x")
    (part / "lengths" / f"{'0' * 32}.parquet").mkdir()
    expected = {("extra", Path(name).name) for name in (*names, f"{'0' * 32}.parquet")}
    assert found(path) == expected


def test_two_swapped_shards_are_found_and_each_says_whose_it_is(built: Path) -> None:
    one, other = (part_of(name) / "shard.00000.mds" for name in ("demo_clipart", "demo_photos"))
    exchange(one, other)
    details = [finding.detail for finding in verify("shards", num_workers=1).findings if finding.problem == "swapped"]
    assert details == [f"it holds the content of {other}", f"it holds the content of {one}"]


def test_two_swapped_parts_are_found(built: Path) -> None:
    exchange(part_of("demo_clipart"), part_of("demo_photos"))
    assert ("swapped", PART_FILE) in found()
    assert ("other_pin", PART_FILE) in found("mixes/mix")


def test_two_swapped_samples_in_the_index_are_found(built: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0], rows[1] = rows[1], rows[0]

    table = part_of("demo_clipart") / "samples.parquet"
    rewrite_table(table, change)
    assert ("stale_index", "shard.00000.mds") in found()


@pytest.mark.parametrize("name", ["samples.parquet", "media.parquet", "texts.parquet"])
def test_a_table_of_another_schema_is_found(built: Path, name: str) -> None:
    path = part_of("demo_clipart") / name
    pq.write_table(pq.read_table(path).drop_columns(["sample_key"]), path)
    record_anew(path)
    findings = verify("shards", num_workers=1).findings
    assert [(f.problem, f.detail) for f in findings] == [
        ("wrong_schema", "sample_key is missing, expected uint64")
    ]  # fmt: skip


def test_a_shard_of_other_columns_is_found(built: Path) -> None:
    shard = part_of("demo_clipart") / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes().replace(b'"bytes"', b'"pkl"  ', 1))
    record_anew(shard)
    assert found() == {("wrong_schema", shard.name)}


def test_a_stale_view_for_streaming_is_found(built: Path) -> None:
    path = part_of("demo_photos").parents[1] / "index.json"
    view = json.loads(path.read_text())
    view["shards"][0]["samples"] -= 1
    path.write_text(json.dumps(view))
    assert found() == {("stale_index", "index.json")}
    assert found("mixes/mix") == {("stale_index", "index.json")}


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("samples.parquet", "byte_begin", 7),
        ("samples.parquet", "num_images", 9),
        ("samples.parquet", "sample_id", "other"),
        ("media.parquet", "xxh3_128", "0" * 32),
        ("media.parquet", "width", 9),
        ("texts.parquet", "messages", "[]"),
    ],
)
def test_a_row_that_does_not_say_what_the_shard_holds_is_found(
    built: Path, name: str, column: str, value: object
) -> None:
    rewrite_table(part_of("demo_photos") / name, lambda rows: rows[2].update({column: value}))
    findings = [finding for finding in verify("shards", num_workers=1).findings if finding.problem == "stale_index"]
    assert any(re.search(rf"sample 2 .*({column} is|media.parquet has 0)", finding.detail) for finding in findings)


@pytest.mark.parametrize("change", [list.pop, lambda rows: rows.append(rows[-1])])
def test_a_wrong_count_of_rows_is_found(built: Path, change: Callable[[list[Any]], object]) -> None:
    rewrite_table(part_of("demo_photos") / "samples.parquet", change)
    assert ("wrong_count", "samples.parquet") in found()


def test_a_wrong_count_in_part_json_is_found(built: Path) -> None:
    path = part_of("demo_photos") / PART_FILE
    path.write_text(replace(read_part(path.parent), num_kept=16).as_json())
    assert {("wrong_count", PART_FILE), ("wrong_count", "samples.parquet")} <= found()


def test_lengths_of_other_samples_are_found(built: Path) -> None:
    one, other = (next((part_of(name) / "lengths").iterdir()) for name in ("demo_clipart", "demo_photos"))
    shutil.copy(other, one)
    assert found() == {("wrong_count", one.name), ("stale_index", one.name)}
    assert ("damaged", one.name) in found("mixes/mix")


def test_a_flipped_bit_in_the_rows_of_lengths_is_found(built: Path) -> None:
    path = next((part_of("demo_photos") / "lengths").iterdir())
    group = pq.read_metadata(path).row_group(0)
    for column in map(group.column, range(group.num_columns)):
        at = column.data_page_offset + column.total_compressed_size
        if column.has_dictionary_page:
            at = column.dictionary_page_offset + column.total_compressed_size
        flip(path, at - 1)  # of its last page
        assert found() == {("damaged", path.name)}, column.path_in_schema
        flip(path, at - 1)
    assert found() == set()


def test_a_selection_of_other_content_is_found(built: Path) -> None:
    path = current_mix(Path("mixes/mix")) / "selection.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    assert found("mixes/mix") == {(problem, path.name) for problem in ("damaged", "wrong_count", "stale_index")}
    pq.write_table(table.drop_columns(["split"]), path)
    assert found("mixes/mix") == {("damaged", path.name), ("wrong_schema", path.name)}


def test_a_manifest_that_was_edited_is_found(built: Path) -> None:
    mix = current_mix(Path("mixes/mix"))
    manifest = read_manifest(mix)
    (mix / "manifest.json").write_text(manifest_text(replace(manifest, seed=5)))
    assert found("mixes/mix") == {("damaged", "manifest.json")}
    edited = replace(manifest, seed=5, fingerprint=fingerprint(replace(manifest, seed=5)))
    (mix / "manifest.json").write_text(manifest_text(edited))
    assert found("mixes/mix") == {("swapped", "manifest.json")}


def test_a_damaged_manifest_is_a_finding_not_a_failure(built: Path) -> None:
    (current_mix(Path("mixes/mix")) / "manifest.json").write_text("{")
    assert found("mixes/mix") == {("unreadable", "manifest.json")}


def test_a_version_of_the_source_that_was_edited_is_found(built: Path) -> None:
    (path,) = (part_of("demo_photos").parents[1] / "sources").iterdir()
    version = json.loads(path.read_text())
    path.write_text(json_text.dumps_indented({**version, "parts": []}))
    assert ("damaged", path.name) in found()
    assert ("stale_index", path.name) in found("mixes/mix")


@pytest.mark.parametrize("change", [("jsonl", "jsonm"), ("  ", "   ")])
def test_a_letter_changed_in_a_version_of_the_source_is_found(built: Path, change: tuple[str, str]) -> None:
    (path,) = (part_of("demo_photos").parents[1] / "sources").iterdir()
    path.write_text(path.read_text().replace(*change, 1))
    assert found() == {("damaged", path.name)}


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_changed_there_is_a_finding_and_never_a_crash(built: Path, seed: int) -> None:
    random = Random(seed)
    files = sorted(path for path in Path("shards").rglob("*") if path.is_file() and path.parent.name != "lengths")
    for _ in range(6):
        path = random.choice(files)
        content = path.read_bytes()
        cut = path.name.endswith(".json") or random.random() < 0.3
        changed = bytearray(content[: random.randrange(len(content))] if cut else content)
        if not cut:
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        assert found(), f"{path}: {'cut' if cut else 'flipped'}"
        path.write_bytes(content)


@pytest.mark.parametrize("path", ["nowhere", "tiny", "s3:///shards", "tiny/config.json"])
def test_a_wrong_path_is_a_config_error(built: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(path)):
        verify(path)


def test_the_command_lists_findings_and_its_exit_code_tells(built: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, "verify", *arguments], capture_output=True, text=True, check=False)

    sound = run("shards", "--num-workers", "2")
    assert (sound.returncode, sound.stdout) == (0, "")
    assert re.search(r"verify: 3 parts, 68 samples, .* 0 findings", sound.stderr)
    shard = part_of("demo_video") / "shard.00000.mds"
    shard.unlink()
    found = run("shards", "--json")
    row = {"problem": "missing", "path": str(shard), "detail": "part.json records it"}
    assert (found.returncode, json.loads(found.stdout)["findings"]) == (3, [row])
    assert run("shards").stdout == f"missing: {shard}: part.json records it\n"
    assert run("nowhere").returncode == 2


def change_manifest(name: str, value: object) -> None:
    path = current_mix(Path("mixes/mix")) / "manifest.json"
    fields = json.loads(path.read_text())
    fields["datasets"][0][name] = value
    path.write_text(json.dumps(fields))


def change_record(name: str, value: object) -> None:
    path = next(Path("shards").glob("*/*/parts/*/part.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        (change_manifest, "shards", 7),
        (change_manifest, "num_selected", "x"),
        (change_record, "num_kept", None),
        (change_record, "shard_samples", ["a"]),
    ],
)
def test_records_with_values_of_other_types_are_named(
    built: Path,
    change: Callable[[str, object], None],
    name: str,
    value: object,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change(name, value)
    assert main(["verify", "mixes/mix", "--num-workers", "1"]) == 3
    capfd.readouterr()
    assert main(["sql", "mixes/mix", "select count(*) from samples"]) == 2
    assert f".json: {'damaged manifest: ' if change is change_manifest else ''}{name} " in capfd.readouterr().err
