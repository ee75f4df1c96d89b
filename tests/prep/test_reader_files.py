"""JSONL and LLaVA files: media beside them, ``data:`` URLs, and the doors for what cannot be had."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.source import FileSource
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import plan_files, read_part
from vlm_prep.source_format import find_files, hidden_files, resolve_format


def source_at(path: Path, **options: Any) -> FileSource:
    return FileSource(
        **{"name": "d", "weight": 1.0, "path": str(path), "format": "auto", "origin": "x.toml:1", **options}
    )


def read(source: FileSource, *, max_sample_bytes: int = 1 << 28) -> dict[str, Any]:
    limits = Limits(max_sample_bytes=max_sample_bytes)
    file_format = resolve_format(source)
    raws = [raw for part in plan_files(source, file_format) for raw in read_part(source, file_format, part, limits)]
    built = [build_sample(raw, limits) if isinstance(raw, RawSample) else raw for raw in raws]
    return {sample.origin.sample_id: sample for sample in built}


def outcomes(samples: dict[str, Any]) -> list[str]:
    return [sample.rejected.reason if isinstance(sample, RejectedSample) else "kept" for sample in samples.values()]


def showing(image: str) -> dict[str, Any]:
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "That."}]}


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def test_rows_are_numbered_within_their_file_and_blank_lines_count(tmp_path: Path, small: Any) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(small.picture("red"))
    write_lines(tmp_path / "d" / "b.jsonl", [showing("a.png"), "", showing("a.png")])
    write_lines(tmp_path / "d" / "a" / "c.jsonl", [showing("../a.png")])
    samples = read(source_at(tmp_path / "d"))
    assert list(samples) == ["a/c.jsonl#000000000", "b.jsonl#000000000", "b.jsonl#000000002"]
    assert outcomes(samples) == ["kept"] * 3
    text = (tmp_path / "d" / "b.jsonl").read_bytes()
    offset = samples["b.jsonl#000000002"].origin.byte_offset
    assert json.loads(text[offset:]) == showing("a.png")


def test_each_fault_has_its_own_door(tmp_path: Path, small: Any) -> None:
    (tmp_path / "secret.png").write_bytes(small.picture("red"))
    data = tmp_path / "d"
    data.mkdir()
    (data / "link.png").symlink_to(tmp_path / "secret.png")
    (data / "empty.png").touch()
    (data / "film.png").write_bytes(small.film())
    doors = {
        "gone.png": "missing_media",
        "x" * 300: "missing_media",
        "bad\0name": "missing_media",
        "../secret.png": "media_outside_root",
        str(tmp_path / "secret.png"): "media_outside_root",
        "link.png": "media_outside_root",
        "http://example.org/a.png": "remote_media",
        "HTTPS://example.org/a.png": "remote_media",
        "empty.png": "media_empty",
        "film.png": "media_kind_mismatch",
        "data:image/png;base64,%%%": "media_unreadable",
        "data:nothing": "media_unreadable",
    }
    write_lines(data / "a.jsonl", [*map(showing, doors), "{"])
    samples = read(source_at(data))
    assert outcomes(samples) == [*doors.values(), "unreadable_json"]
    assert all(len(sample.rejected.detail) < 700 for sample in samples.values())


def test_data_urls_absolute_paths_file_urls_and_a_media_root_are_read(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    root = tmp_path / "images"
    root.mkdir()
    (root / "a b.png").write_bytes(red)
    url = "data:image/png;base64," + base64.b64encode(red).decode()
    names = [url, "a b.png", str(root / "a b.png"), (root / "a b.png").as_uri()]
    write_lines(tmp_path / "d" / "a.jsonl", [showing(name) for name in names])
    samples = read(source_at(tmp_path / "d", media_root=str(root)))
    assert outcomes(samples) == ["kept"] * 4
    assert {bytes(sample.media[0].content) for sample in samples.values()} == {red}
    assert len({sample.messages_json + sample.media_table_json for sample in samples.values()}) == 1


def test_a_medium_used_twice_is_stored_once(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    (tmp_path / "a.png").write_bytes(red)
    image = {"type": "image", "image": "a.png"}
    write_lines(tmp_path / "a.jsonl", [{"messages": [{"role": "user", "content": [image, image]}]}])
    (sample,) = read(source_at(tmp_path)).values()
    assert [bytes(medium.content) for medium in sample.media] == [red]


def test_sizes_are_checked_before_media_are_loaded(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it would not end well
    write_lines(tmp_path / "a.jsonl", [showing("huge.png"), showing("x" * 5000)])
    assert outcomes(read(source_at(tmp_path), max_sample_bytes=4000)) == ["sample_too_large", "sample_too_large"]


def test_llava_arrays_give_what_messages_give(tmp_path: Path, small: Any) -> None:
    (tmp_path / "a.png").write_bytes(small.picture("red"))
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    rows = [{"id": "x", "image": "a.png", "conversations": turns}, {"conversations": turns[1:]}]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    write_lines(tmp_path / "m.jsonl", [showing("a.png")])
    first, second = read(source_at(tmp_path / "l.json")).values()
    (other,) = read(source_at(tmp_path / "m.jsonl")).values()
    assert isinstance(first, BuiltSample)
    assert (first.origin.sample_id, first.source_id) == ("l.json#000000000", "x")
    assert (first.messages_json, first.media_table_json) == (other.messages_json, other.media_table_json)
    assert isinstance(second, BuiltSample)
    assert second.media == []


def test_the_format_is_found_by_looking_and_doubt_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        resolve_format(source_at(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"no \*\.jsonl, no"):
        resolve_format(source_at(tmp_path))
    (tmp_path / "a.json").write_text("[]")
    assert resolve_format(source_at(tmp_path)) == "llava"
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ConfigError, match="say which"):
        resolve_format(source_at(tmp_path))
    assert resolve_format(source_at(tmp_path, format="jsonl")) == "jsonl"


def test_columns_map_other_names_of_a_record(tmp_path: Path, small: Any) -> None:
    (tmp_path / "a.png").write_bytes(small.picture("red"))
    turns = [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "That."}]
    write_lines(tmp_path / "a.jsonl", [{"chat": turns, "pics": ["a.png"], "image": "thumbnail.png", "messages": 1}])
    write_lines(tmp_path / "b.jsonl", [showing("a.png")])
    source = source_at(tmp_path / "a.jsonl", columns={"messages": "chat", "images": "pics"})
    (mapped,) = read(source).values()
    (usual,) = read(source_at(tmp_path / "b.jsonl")).values()
    assert (mapped.messages_json, mapped.media_table_json) == (usual.messages_json, usual.media_table_json)


def test_a_file_name_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    write_lines(tmp_path / os.fsdecode(b"\xff.jsonl"), [showing("a.png")])
    with pytest.raises(ConfigError, match=r"x\.toml:1: d: .*\\xff\.jsonl' is not UTF-8; rename the file"):
        read(source_at(tmp_path))


LINE = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"


@pytest.mark.parametrize("odd", ["link", "fifo"])
def test_what_is_named_like_data_and_cannot_be_read_is_said(odd: str, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(LINE)
    if odd == "link":
        (tmp_path / "a.jsonl").symlink_to("nowhere")
    else:
        os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match=r"a\.jsonl is (a link that leads nowhere|neither a file nor a folder)"):
        resolve_format(source_at(tmp_path))


def test_linked_folders_are_read_and_loops_of_them_are_not(tmp_path: Path) -> None:
    for name in ("d/one", "d/two", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jsonl").write_text(LINE)
    links = {"d/linked": "../elsewhere", "d/loop": ".", "d/up": "..", "d/one/other": "../two", "d/two/other": "../one"}
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    found = {"d/one/a", "d/two/a", "d/linked/a", "d/one/other/a", "d/two/other/a"}
    expected = {f"{name.removeprefix('d/')}.jsonl#{0:09d}" for name in found}
    assert set(read(source_at(tmp_path / "d"))) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up a right needs root")
def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("d/closed").mkdir(parents=True)
    Path("d/b.jsonl").write_text(LINE)
    Path("d/closed").chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match="d/closed: cannot be read: Permission denied"):
            resolve_format(source_at(Path("d")))
    finally:
        os.seteuid(0)


def test_hidden_files_and_folders_are_no_data(tmp_path: Path) -> None:
    write_lines(tmp_path / ".d" / "a.jsonl", [showing("a.png")])  # a hidden root is what was asked for
    for name in ("._a.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl", "b/.cache/c.jsonl"):
        write_lines(tmp_path / ".d" / name, [showing("a.png")])
    source = source_at(tmp_path / ".d")
    assert [file.name for file in find_files(source, "jsonl")] == ["a.jsonl"]
    assert len(hidden_files(source, "jsonl")) == 3
    assert hidden_files(source_at(tmp_path / ".d" / "._a.jsonl"), "jsonl") == []


def test_an_array_of_records_on_one_line_is_not_one_sample_of_alternatives(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    write_lines(tmp_path / "a.jsonl", [record, [record, record], [record["messages"], record["messages"]]])
    samples = read(source_at(tmp_path))
    assert outcomes(samples) == ["kept", "bad_conversation", "kept"]
    assert "an array of 2 records" in samples["a.jsonl#000000001"].rejected.detail


def test_lines_of_objects_in_a_json_file_are_called_what_they_are(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", [showing("a.png"), showing("a.png")])
    with pytest.raises(DataError, match=r"expected one JSON array of records; a file of one object a line is JSONL"):
        read(source_at(tmp_path))


def test_a_compressed_file_alone_is_said_whatever_its_form(tmp_path: Path) -> None:
    (tmp_path / "a.JSONL.GZ").write_bytes(b"")
    for path in (tmp_path, tmp_path / "a.JSONL.GZ"):
        with pytest.raises(ConfigError, match=r"a\.JSONL\.GZ is compressed with gzip, which is not read; unpack it"):
            resolve_format(source_at(path))
    with pytest.raises(ConfigError, match=r"shard\.00000\.mds\.zstd is compressed with zstd"):
        (tmp_path / "mds").mkdir()
        (tmp_path / "mds" / "shard.00000.mds.zstd").write_bytes(b"")
        find_files(source_at(tmp_path / "mds", format="mds"), "mds")
    (tmp_path / "labels.json.gz").write_bytes(b"")  # of another form than the data
    write_lines(tmp_path / "a.JSONL", [showing("a.png")])
    assert resolve_format(source_at(tmp_path)) == "jsonl"
    assert len(find_files(source_at(tmp_path), "jsonl")) == 1
