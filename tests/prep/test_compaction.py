import json
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.prep.conftest import picture
from tests.prep.test_prune import COPIES, HERE, MIXES, drop_old_mixes
from tests.prep.test_verify import flip, record_anew

from vlm_catalogs.config import load_config
from vlm_catalogs.layout import PART_FILE
from vlm_catalogs.manifest import current_mix, read_manifest
from vlm_prep import compaction
from vlm_prep.build import build_mix
from vlm_prep.cli import main
from vlm_prep.compact_stage import merge_tables
from vlm_prep.index_files import find_index
from vlm_prep.prune import delete_parts, find_loose_parts
from vlm_prep.row_groups import ROW_GROUP_ROWS
from vlm_prep.sql_views import create_views
from vlm_prep.verify import verify
from vlm_prep.verify.findings import DAMAGED, EXTRA, MISSING, STALE_INDEX

VIEWS = ("samples", "media", "texts", "lengths", "facts", "decoded_media")


@pytest.fixture
def compacted(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mix of a source of three parts besides the others, decoded and compacted."""
    monkeypatch.setattr(compaction, "FEWEST_PARTS", 2)
    Path("own/media").mkdir(parents=True)
    for number in range(3):
        write_lines(number, 4)
    toml = Path("mix.toml")
    toml.write_text(toml.read_text() + "[mix]\ndecode = 'full'\n[[mix.source]]\nname = 'own'\npath = 'own'\n")
    build_mix(load_config(toml))
    return next(Path("shards/own").glob("*/compacted"))


def write_lines(number: int, lines: int) -> None:
    """A file of the source: samples of one picture each."""
    name = f"media/{number}.png"
    (Path("own") / name).write_bytes(picture("teal", size=(60 + number, 40)))
    messages = [
        [
            {"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": f"Say {line}"}]},
            {"role": "assistant", "content": f"{number} {line}"},
        ]
        for line in range(lines)
    ]
    (Path("own") / f"{number}.jsonl").write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages))


def rows(path: str, *, of_parts: bool) -> dict[str, list[tuple]]:
    files = find_index(path, compacted=not of_parts)
    assert bool(files.compacted) != of_parts
    with duckdb.connect() as index:
        create_views(index, files)
        return {name: index.sql(f"select * from {name} order by all").fetchall() for name in VIEWS}


@pytest.mark.parametrize("path", ["mixes/mix", "shards", "shards/own"])
def test_views_of_compactions_hold_what_the_parts_hold(compacted: Path, path: str) -> None:
    assert rows(path, of_parts=False) == rows(path, of_parts=True)
    files = find_index(path)
    assert {one.table.split("/")[0] for one in files.compacted} == {
        "samples.parquet",
        "media.parquet",
        "lengths",
        "facts",
    }
    assert not any("own" in one.parts and "compacted" not in one.parts for one in files.table("samples"))
    assert verify(path, num_workers=1).findings == ()


def test_a_mix_of_other_weights_has_the_same_compactions_and_selects_the_same_without_them(compacted: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in compacted.rglob("*")}
    toml = Path("mix.toml")
    toml.write_text(toml.read_text() + "weight = 3\n")
    with_them = build_mix(load_config(toml))
    assert {path: path.stat().st_mtime_ns for path in compacted.rglob("*")} == before
    selection = (with_them / "selection.parquet").read_bytes()
    shutil.rmtree(compacted)
    shutil.rmtree(with_them)
    assert build_mix(load_config(toml)) == with_them
    assert (with_them / "selection.parquet").read_bytes() == selection
    assert set(compacted.rglob("*")) == set(before)


def test_a_damaged_compaction_is_found_not_selected_from_and_made_anew(compacted: Path) -> None:
    (samples,) = compacted.glob("*/samples.parquet")
    whole = samples.read_bytes()
    flip(samples, 200)
    assert {(one.problem, one.path) for one in verify("shards", num_workers=1).findings} == {(DAMAGED, str(samples))}
    build_mix(load_config(Path("mix.toml")))
    assert samples.read_bytes() == whole


def test_what_is_wrong_with_a_compaction_is_found_and_repair_deletes_it(compacted: Path) -> None:
    (samples,), (media,), (lengths,) = (
        list(compacted.glob(name)) for name in ("*/samples.parquet", "*/media.parquet", f"*/{'[0-9a-f]' * 32}.parquet")
    )
    (samples.parent / PART_FILE).unlink()
    (media.parent / "more").touch()
    record = json.loads((lengths.parent / PART_FILE).read_text())
    record["inputs"].reverse()
    (lengths.parent / PART_FILE).write_text(json.dumps(record))
    found = {(one.problem, Path(one.path).name) for one in verify("mixes/mix", num_workers=1).findings}
    assert found == {(MISSING, PART_FILE), (EXTRA, "more"), (DAMAGED, PART_FILE)}
    assert main(["verify", "mix.toml", "--repair"]) == 3, "a file that nothing knows of stays, as elsewhere"
    assert not samples.parent.exists() and not lengths.parent.exists() and media.exists()


def test_a_compaction_of_other_rows_than_the_parts_have_is_found(compacted: Path) -> None:
    """Its record agrees with it: only the parts can tell."""
    (samples,) = compacted.glob("*/samples.parquet")
    table = pq.read_table(samples)
    pq.write_table(table.slice(1), samples)
    record_anew(samples)
    found = verify("shards", num_workers=1).findings
    assert [(one.problem, one.path) for one in found] == [(STALE_INDEX, str(samples))]


def test_prune_deletes_what_is_of_parts_that_no_mix_pins(compacted: Path) -> None:
    old = {path.name for path in compacted.iterdir()}
    write_lines(2, 5)
    build_mix(load_config(Path("mix.toml")))
    new = {path.name for path in compacted.iterdir()} - old
    assert len(old) == len(new) == 4
    assert find_loose_parts(HERE, [str(MIXES)], copies=COPIES) == []
    drop_old_mixes()
    loose = find_loose_parts(HERE, [str(MIXES)], copies=COPIES)
    assert {one.name for one in loose if one.kind == "compacted"} == old
    assert [one.kind for one in loose].count("parts") == 1
    delete_parts(HERE, loose, [str(MIXES)], copies=COPIES)
    assert {path.name for path in compacted.iterdir()} == new
    assert verify("shards", num_workers=1).findings == () and verify("mixes/mix", num_workers=1).findings == ()


def test_parts_deleted_by_hand_leave_a_compaction_that_nobody_reads(compacted: Path) -> None:
    gone = next(compacted.parent.glob("parts/*"))
    shutil.rmtree(gone)
    files = find_index("shards/own")
    assert files.compacted == () and len(files.table("samples")) == 2
    problems = {one.problem for one in verify("shards", num_workers=1).findings if "compacted" in one.path}
    assert problems == {STALE_INDEX}


def test_a_place_that_takes_no_compaction_costs_no_mix(compacted: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(compacted)
    compacted.touch()
    version = current_mix(MIXES / "mix")
    shutil.rmtree(version)
    assert build_mix(load_config(Path("mix.toml"))) == version
    assert read_manifest(version).datasets
    assert "note: the index is not compacted, questions read its parts one by one: " in capfd.readouterr().err
    assert not find_index("mixes/mix").compacted


def test_many_small_tables_become_row_groups_of_the_usual_size(tmp_path: Path) -> None:
    sizes = (ROW_GROUP_ROWS - 10, 0, 25, 2 * ROW_GROUP_ROWS, 1)
    for number, size in enumerate(sizes):
        pq.write_table(pa.table({"x": pa.array([number] * size, pa.int32())}), tmp_path / f"{number}.parquet")
    merge_tables([tmp_path / f"{number}.parquet" for number in range(5)], tmp_path / "all.parquet")
    found = pq.ParquetFile(tmp_path / "all.parquet").metadata
    assert [found.row_group(number).num_rows for number in range(4)] == [ROW_GROUP_ROWS] * 3 + [16]
    assert pq.read_table(tmp_path / "all.parquet")["x"].to_pylist() == [
        number for number, size in enumerate(sizes) for _ in range(size)
    ]
