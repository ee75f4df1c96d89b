"""Parquet: structs and JSON text, media inside and beside, parts of row groups, and the doors for what is wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.source import FileSource
from vlm_prep import parts
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.mended import renamed_if_mended
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import plan_files, read_part
from vlm_prep.source_format import resolve_format

LIMITS = Limits(max_sample_bytes=1 << 28)
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]


def source_at(path: Path, **options: Any) -> FileSource:
    fields = {"name": "d", "weight": 1.0, "path": str(path), "format": "auto", "origin": "x.toml:1"}
    return FileSource(**{**fields, **options})


def read(source: FileSource, limits: Limits = LIMITS) -> dict[str, Any]:
    file_format = resolve_format(source)
    raws = [raw for part in plan_files(source, file_format) for raw in read_part(source, file_format, part, limits)]
    built = [build_sample(raw, limits) if isinstance(raw, RawSample) else raw for raw in raws]
    return {sample.origin.sample_id: sample for sample in built}


def outcomes(samples: dict[str, Any]) -> list[str]:
    return [sample.rejected.reason if isinstance(sample, RejectedSample) else "kept" for sample in samples.values()]


def write(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def turns(*media: str) -> list[dict[str, Any]]:
    shown = [{"type": kind, "text": None} for kind in media]
    content = [*shown, {"type": "text", "text": "What?"}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "That."}]}]


def test_every_spelling_of_a_row_gives_the_same_sample(tmp_path: Path, small: Any) -> None:
    red, film = small.picture("red"), small.film()
    (tmp_path / "red.png").write_bytes(red)
    (tmp_path / "film.mp4").write_bytes(film)
    structs = turns("image", "video")
    spellings: dict[str, dict[str, Any]] = {
        "structs": {"messages": structs, "images": [{"bytes": red, "path": "a.png"}], "videos": [{"bytes": film}]},
        "bytes": {"messages": structs, "images": [red], "videos": [film]},
        "single": {"messages": structs, "image": red, "video": {"bytes": film, "path": None}},
        "json": {"messages": json.dumps(structs), "images": [red], "videos": [film]},
        "beside": {"messages": structs, "images": [{"bytes": None, "path": "red.png"}], "videos": ["film.mp4"]},
        "llava": {
            "conversations": [{"from": "human", "value": "<image><video>What?"}, TURNS[1]],
            "image": "red.png",
            "video": "film.mp4",
        },
        "inside": {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": {"bytes": red, "path": "x"}, "video": None, "text": None},
                        {"type": "video", "image": None, "video": {"bytes": film, "path": "y"}, "text": None},
                        {"type": "text", "image": None, "video": None, "text": "What?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "That."}]},
            ]
        },
    }
    for name, row in spellings.items():
        write(tmp_path / f"{name}.parquet", [row])
    samples = read(source_at(tmp_path))
    assert list(samples) == [f"{name}.parquet#000000000" for name in sorted(spellings)]
    assert outcomes(samples) == ["kept"] * len(spellings)
    assert (
        len({(s.messages_json, s.media_table_json, *(bytes(m.content) for m in s.media)) for s in samples.values()})
        == 1
    )


def test_equal_pictures_are_stored_once_and_two_of_one_path_are_two(tmp_path: Path, small: Any) -> None:
    red, blue = small.picture("red"), small.picture("blue")
    lists: list[list[tuple[bytes, str | None]]] = [
        [(red, "a"), (red, "a")],
        [(red, None), (red, None)],
        [(red, "a"), (blue, "a")],
    ]
    rows = [
        {
            "messages": turns("image", "image"),
            "images": [{"bytes": content, "path": path} for content, path in pictures],
        }
        for pictures in lists
    ]
    samples = read(source_at(write(tmp_path / "a.parquet", rows)))
    assert [[bytes(m.content) for m in s.media] for s in samples.values()] == [[red], [red], [red, blue]]


def test_parts_are_runs_of_row_groups_and_rows_count_within_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"messages": turns(), "n": number} for number in range(10)]
    for name in ("b/x", "a"):
        write(tmp_path / f"{name}.parquet", rows, row_group_size=3)
    monkeypatch.setattr(parts, "TAR_PART_BYTES", 1)
    source = source_at(tmp_path)
    planned = plan_files(source, "parquet")
    assert [[(i.name, i.first_row, i.num_rows) for i in part.inputs] for part in planned] == [
        [(name, first, num)] for name in ("a.parquet", "b/x.parquet") for first, num in ((0, 3), (3, 3), (6, 3), (9, 1))
    ]
    samples = read(source)
    assert list(samples) == [f"{name}.parquet#{row:09d}" for name in ("a", "b/x") for row in range(10)]
    assert [json.loads(sample.meta_json) for sample in samples.values()] == [{"n": n} for n in range(10)] * 2
    monkeypatch.undo()
    assert [len(part.inputs) for part in plan_files(source, "parquet")] == [2]
    assert list(read(source)) == list(samples)


def test_each_fault_of_a_row_has_its_own_door(tmp_path: Path, small: Any) -> None:
    good = {"messages": json.dumps(turns("image")), "images": [{"bytes": small.picture("red"), "path": None}]}
    faults: dict[str, dict[str, Any]] = {
        "unreadable_json": {**good, "messages": '[{"role": "user", "content": NaN}]'},
        "bad_conversation": {**good, "messages": None},
        "media_empty": {**good, "images": [{"bytes": b"", "path": None}]},
        "media_unreadable": {**good, "images": [{"bytes": b"no picture", "path": None}]},
        "missing_media": {**good, "images": [{"bytes": None, "path": "gone.png"}]},
        "media_outside_root": {**good, "images": [{"bytes": None, "path": "../x.png"}]},
        "remote_media": {**good, "images": [{"bytes": None, "path": "https://example.org/x.png"}]},
        "media_kind_mismatch": {**good, "images": [{"bytes": small.film(), "path": None}]},
        "sample_too_large": {**good, "images": [{"bytes": bytes(1 << 17), "path": None}]},
        "kept": good,
    }
    source = source_at(write(tmp_path / "d" / "a.parquet", list(faults.values())))
    assert outcomes(read(source, Limits(max_sample_bytes=1 << 17))) == list(faults)


def test_a_row_with_broken_utf8_leaves_alone(tmp_path: Path) -> None:
    text = json.dumps(turns()).encode()
    column = pa.array([text, b"\xff\xfe", text]).view(pa.string())
    pq.write_table(pa.table({"messages": column}), tmp_path / "a.parquet")
    assert outcomes(read(source_at(tmp_path))) == ["kept", "unreadable_json", "kept"]


def test_other_columns_become_meta_but_bytes_and_nulls_do_not(tmp_path: Path) -> None:
    row = {"id": 7, "messages": turns(), "score": float("nan"), "tags": ["a"], "thumbnail": b"x", "none": None}
    (sample,) = read(source_at(write(tmp_path / "a.parquet", [row]))).values()
    assert (sample.source_id, json.loads(sample.meta_json)) == ("7", {"id": 7, "tags": ["a"]})


def test_columns_map_other_names(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    row = {"chat": turns("image"), "pics": [red], "key": "k", "messages": "a summary", "image": b"a thumbnail"}
    columns = {"messages": "chat", "images": "pics", "id": "key"}
    (sample,) = read(source_at(write(tmp_path / "a.parquet", [row]), columns=columns)).values()
    assert isinstance(sample, BuiltSample)
    assert (sample.source_id, [bytes(medium.content) for medium in sample.media]) == ("k", [red])


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"text": "x"}, {}, r"no column messages or conversations; it has text; say which with columns"),
        ({"messages": "x"}, {"messages": "chat"}, r"no column 'chat'; it has messages"),
    ],
)
def test_missing_columns_are_named(tmp_path: Path, row: dict[str, Any], columns: dict[str, str], message: str) -> None:
    source = source_at(write(tmp_path / "a.parquet", [row]), columns=columns)
    with pytest.raises(ConfigError, match=message):
        plan_files(source, "parquet")


def test_a_damaged_file_stops_with_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"messages": json.dumps(turns())}] * 1000, write_page_checksum=True)
    source = source_at(tmp_path)
    (part,) = plan_files(source, "parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    with pytest.raises(DataError, match=r"a\.parquet: row group 0: damaged"):
        list(read_part(source, "parquet", part, LIMITS))
    path.write_bytes(whole.replace(b"messages", b"message\xff"))
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file"):
        plan_files(source, "parquet")
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file"):
        plan_files(source, "parquet")


def test_a_part_with_a_missing_picture_is_renamed_when_it_is_there(tmp_path: Path, small: Any) -> None:
    source = source_at(write(tmp_path / "a.parquet", [{"conversations": TURNS, "image": "late.png"}]))
    (part,) = plan_files(source, "parquet")
    folder = tmp_path / "part"
    folder.mkdir()
    rejected = {"sample_id": "a.parquet#000000000", "source_uri": "a.parquet", "reason": "missing_media"}
    table = pa.Table.from_pylist([{**rejected, "byte_offset": None}])
    pq.write_table(table, folder / "samples.parquet")
    assert renamed_if_mended(source, "parquet", part, folder=folder, limits=LIMITS) == part
    (tmp_path / "late.png").write_bytes(small.picture("red"))
    assert renamed_if_mended(source, "parquet", part, folder=folder, limits=LIMITS).name != part.name


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False, "write_batch_size": 8}])
def test_memory_stays_bounded_whatever_the_row_group(tmp_path: Path, small: Any, options: dict[str, Any]) -> None:
    row = {"messages": json.dumps(turns("image")), "images": [small.picture("red") + bytes(1 << 20)]}
    source = source_at(write(tmp_path / "a.parquet", [row] * 300, **options))
    (part,) = plan_files(source, "parquet")
    before = pa.total_allocated_bytes()
    most = 0
    for _ in read_part(source, "parquet", part, LIMITS):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 100 << 20


def test_a_conversation_stored_as_bytes_is_read_as_its_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pq.write_table(pa.table({"messages": [json.dumps(turns).encode(), b"\xff\xfe"]}), tmp_path / "a.parquet")
    kept, rejected = read(source_at(tmp_path)).values()
    assert isinstance(kept, BuiltSample)
    assert rejected.rejected.reason == "unreadable_json"
