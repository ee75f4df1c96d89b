"""Webdataset tars: media by wds_field, keys with dots, and the doors for members that do not fit."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.errors import DataError
from vlm_catalogs.source import FileSource
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import plan_files, read_part, stated_samples
from vlm_prep.source_format import resolve_format


def source_at(path: Path, **options: Any) -> FileSource:
    fields = {"name": "d", "weight": 1.0, "path": str(path), "format": "auto", "origin": "x.toml:1"}
    return FileSource(**{**fields, **options})


def read(source: FileSource, *, max_sample_bytes: int = 1 << 28) -> dict[str, Any]:
    limits = Limits(max_sample_bytes=max_sample_bytes)
    file_format = resolve_format(source)
    raws = [raw for part in plan_files(source, file_format) for raw in read_part(source, file_format, part, limits)]
    built = [build_sample(raw, limits) if isinstance(raw, RawSample) else raw for raw in raws]
    assert len({sample.origin.sample_id for sample in built}) == len(built)
    return {sample.origin.sample_id: sample for sample in built}


def outcomes(samples: dict[str, Any]) -> dict[str, str]:
    return {
        key: sample.rejected.reason if isinstance(sample, RejectedSample) else "kept" for key, sample in samples.items()
    }


def media(sample: Any) -> list[bytes]:
    assert isinstance(sample, BuiltSample)
    return [bytes(medium.content) for medium in sample.media]


def asking(*fields: str, kind: str = "image") -> bytes:
    content = [*({"type": kind, "wds_field": field} for field in fields), {"type": "text", "text": "What?"}]
    answer = {"role": "assistant", "content": "That."}
    return json.dumps({"messages": [{"role": "user", "content": content}, answer]}).encode()


def test_media_are_found_by_wds_field_and_keys_keep_their_dots(tmp_path: Path, small: Any) -> None:
    red, blue, green = (small.picture(colour) for colour in ("red", "blue", "green"))
    members = [
        ("a.json", asking("0.png", "1.png")),
        ("a.0.png", red),
        ("a.1.png", blue),
        ("a.b.json", asking("png")),
        ("a.b.png", green),
        ("in/a.v1.2.json", asking(".png")),
        ("in/a.v1.2.png", blue),
        ("text.only.json", asking()),
    ]
    small.write_tar(tmp_path / "part" / "00.tar", members)
    samples = read(source_at(tmp_path))
    expected = {"a": [red, blue], "a.b": [green], "in/a.v1.2": [blue], "text.only": []}
    assert {key: media(sample) for key, sample in samples.items()} == {f"part/00/{k}": v for k, v in expected.items()}
    assert samples["part/00/a"].origin.member == "a.json"


def test_media_stand_before_their_json_too(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    small.write_tar(
        tmp_path / "0.tar", [("a.png", red), ("b.png", red), ("b.json", asking("png")), ("a.json", asking("png"))]
    )
    assert {key: media(sample) for key, sample in read(source_at(tmp_path)).items()} == {"0/b": [red], "0/a": [red]}


def test_other_spellings_of_a_medium_are_read(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    url = "data:image/png;base64," + base64.b64encode(red).decode()
    answer = {"role": "assistant", "content": "That."}
    spellings = {
        "place": {"messages": [{"role": "user", "content": [{"type": "image"}]}, answer]},
        "suffix": {"messages": [{"role": "user", "content": [{"type": "image", "image": "png"}]}, answer]},
        "file": {"messages": [{"role": "user", "content": [{"type": "image", "image": "file.png"}]}, answer]},
        "tag": {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "That."}]},
        "url": {"messages": [{"role": "user", "content": [{"type": "image", "image": url}]}, answer]},
    }
    members = [(f"{key}.json", json.dumps(value).encode()) for key, value in spellings.items()]
    small.write_tar(tmp_path / "0.tar", [*members, *((f"{key}.png", red) for key in spellings if key != "url")])
    samples = read(source_at(tmp_path))
    assert {(s.messages_json, s.media_table_json) for s in samples.values()} == {
        (samples["0/place"].messages_json, samples["0/place"].media_table_json)
    }


def test_each_fault_has_its_own_door_and_nothing_is_lost(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    members = [
        ("gone.json", asking("png")),
        ("gone.jpg", red),
        ("broken.json", b"{"),
        ("words.json", b'{"caption": "a"}'),
        ("empty.json", asking("png")),
        ("empty.png", b""),
        ("film.json", asking("mp4")),
        ("film.mp4", small.film()),
        ("field.json", b'{"messages": [{"role": "user", "content": [{"type": "image", "wds_field": 3}]}]}'),
        ("type.json", b'{"messages": [{"role": "user", "content": [{"type": ["image"], "wds_field": "png"}]}]}'),
        ("huge.json", asking("png")),
        ("huge.png", bytes(1 << 19)),
        ("twice.json", asking("png")),
        ("twice.png", red),
        ("twice.png", small.picture("blue")),
        ("twice.json", asking()),
        ("lone.tail.png", red),
        ("lone.png", red),
        ("README", b"words"),
        ("notes.json", asking()),
        ("notes.txt", b"words"),
    ]
    small.write_tar(tmp_path / "0.tar", members)
    samples = read(source_at(tmp_path), max_sample_bytes=1 << 19)
    assert outcomes(samples) == {
        "0/gone": "missing_media",
        "0/broken": "unreadable_json",
        "0/words": "bad_conversation",
        "0/empty": "media_empty",
        "0/film": "media_kind_mismatch",
        "0/field": "bad_conversation",
        "0/type": "bad_conversation",
        "0/huge": "sample_too_large",
        "0/twice": "kept",
        "0/notes": "kept",
        "0/lone": "missing_text",
        "0/README": "missing_text",
        "0/twice~2": "duplicate_member",
        "0/twice~3": "duplicate_member",
    }
    assert media(samples["0/twice"]) == [red]
    assert json.loads(samples["0/notes"].meta_json) == {"unread_members": ["txt"]}


def test_a_second_member_takes_no_id_of_another_sample(tmp_path: Path, small: Any) -> None:
    """Found by fuzzing: ``a.json`` twice beside ``a~2.json`` gave two samples one id, and the build stopped."""
    small.write_tar(tmp_path / "0.tar", [("a.json", asking()), ("a.json", asking()), ("a~2.json", asking())])
    samples = read(source_at(tmp_path))
    assert {key: isinstance(one, BuiltSample) for key, one in samples.items()} == {
        "0/a": True,
        "0/a~2": True,
        "0/a~3": False,
    }


def test_a_text_that_differs_in_the_case_of_its_ending_does_not_vanish(tmp_path: Path, small: Any) -> None:
    """Found by fuzzing: of ``a.json`` and ``a.JSON`` one was dropped without a row."""
    small.write_tar(tmp_path / "0.tar", [("a.json", asking()), ("a.JSON", asking())])
    samples = read(source_at(tmp_path))
    assert [one.origin.member for one in samples.values()] == ["a.json", "a.JSON"]
    assert samples["0/a~2"].rejected.reason == "duplicate_member"


def test_a_truncated_tar_stops_with_its_name(tmp_path: Path, small: Any) -> None:
    small.write_tar(tmp_path / "0.tar", [("a.json", asking()), ("b.json", asking())])
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:1100])
    with pytest.raises(DataError, match=r"0\.tar: byte 1,024"):
        read(source_at(tmp_path))


def test_meta_json_beside_the_tars_says_how_many_there_are(tmp_path: Path, small: Any) -> None:
    small.write_tar(tmp_path / "a" / "0.tar", [("a.json", asking())])
    small.write_tar(tmp_path / "b" / "0.tar", [("a.json", asking())])
    source = source_at(tmp_path)
    assert stated_samples(source, "webdataset") is None
    for name in ("a", "b"):
        (tmp_path / name / "meta.json").write_text('{"total_items": 2}')
    assert (resolve_format(source), stated_samples(source, "webdataset")) == ("webdataset", 4)
    (tmp_path / "a" / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json: broken JSON"):
        stated_samples(source, "webdataset")


def test_a_heif_image_that_no_item_names_is_listed_as_unread(tmp_path: Path, small: Any) -> None:
    heif = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 400
    members = [("a.json", asking("png")), ("a.png", small.picture("red")), ("a.heic", heif)]
    members += [("b.json", asking("heic")), ("b.heic", heif)]
    small.write_tar(tmp_path / "0.tar", members)
    samples = read(source_at(tmp_path))
    assert json.loads(samples["0/a"].meta_json) == {"unread_members": ["heic"]}
    assert samples["0/b"].rejected.reason == "media_unreadable"
