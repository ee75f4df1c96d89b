"""i4 tars: members are matched by name, and every sample is kept or leaves by a named door."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.errors import DataError
from vlm_prep.built_sample import BuiltSample
from vlm_prep.i4_inputs import plan_i4
from vlm_prep.raw_sample import RejectedSample

Write = Callable[..., Any]
Read = Callable[..., dict[str, Any]]
TAR = "part_000000/000000.tar"
PREFIX = "part_000000/000000/"


def outcome(samples: dict[str, Any]) -> dict[str, str]:
    """sample_id -> "kept" or the reason."""
    return {
        sample_id.removeprefix(PREFIX): sample.rejected.reason if isinstance(sample, RejectedSample) else "kept"
        for sample_id, sample in samples.items()
    }


def test_pickled_dicts_bare_images_bare_videos_and_text_alone_are_kept(
    write_i4: Write, read_i4: Read, small: Any
) -> None:
    media = {"image_1": small.picture("red"), "image_0": small.picture("blue"), "video_0": small.film()}
    texts = [
        ("dict.json", small.asking("image_0", "video_0", "image_1")),
        ("photo.json", small.asking("image_0")),
        ("film.json", small.asking("video_0")),
        ("alone.json", small.asking()),
        ("none.json", small.asking()),
    ]
    members = [
        ("film.mp4", media["video_0"]),  # another order than the texts
        ("photo.jpg", small.picture("red", image_format="JPEG")),
        ("dict.pkl", small.pickled(media)),
        ("none.pkl", small.pickled({})),
    ]
    samples = read_i4(write_i4({"texts": {TAR: texts}, "media": {TAR: members}}))
    assert outcome(samples) == dict.fromkeys(["dict", "photo", "film", "alone", "none"], "kept")
    first = samples[PREFIX + "dict"]
    assert [(m.name, m.source_name) for m in first.media] == [
        ("image_0", "image_0"),
        ("video_0", "video_0"),
        ("image_1", "image_1"),
    ]
    assert [bytes(m.content) for m in first.media] == [media["image_0"], media["video_0"], media["image_1"]]
    table = json.loads(samples[PREFIX + "photo"].media_table_json)
    assert [(row["name"], row["format"], row["width"], row["offset"]) for row in table] == [("image_0", "jpeg", 40, 0)]
    assert samples[PREFIX + "film"].media[0].facts.frames


def test_dots_in_names_do_not_merge_samples(write_i4: Write, read_i4: Read, small: Any) -> None:
    texts = [("a.1.json", small.asking("image_0")), ("a.2.json", small.asking("image_0"))]
    media = [("a.1.jpg", small.picture("red")), ("a.2.jpg", small.picture("blue"))]
    samples = read_i4(write_i4({"texts": {TAR: texts}, "media": {TAR: media}}))
    assert outcome(samples) == {"a.1": "kept", "a.2": "kept"}
    assert samples[PREFIX + "a.1"].media[0].facts.xxh3_128 != samples[PREFIX + "a.2"].media[0].facts.xxh3_128


def test_equal_file_names_in_two_folders_of_a_tar_do_not_merge(write_i4: Write, read_i4: Read, small: Any) -> None:
    texts = [("x/a.json", small.asking("image_0")), ("y/a.json", small.asking())]
    samples = read_i4(write_i4({"texts": {TAR: texts}, "media": {TAR: [("./x/a.jpg", small.picture("red"))]}}))
    assert outcome(samples) == {"x/a": "kept", "y/a": "kept"}


def test_folders_that_differ_between_tars_still_match(write_i4: Write, read_i4: Read, small: Any) -> None:
    tars = {
        "texts": {TAR: [("texts/a.json", small.asking("image_0"))]},
        "media": {TAR: [("m/a.jpg", small.picture("red"))]},
    }
    assert outcome(read_i4(write_i4(tars))) == {"a": "kept"}


def test_each_fault_has_its_own_door(write_i4: Write, read_i4: Read, small: Any) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (Path("never"),))

    ask = small.asking("image_0")
    texts = [
        ("good.json", ask),
        ("orphan.json", ask),
        ("broken.json", b'{"a"'),
        ("nan.json", b'[{"role": "user", "content": NaN}]'),
        ("shape.json", b'{"a": 1}'),
        ("evil.json", ask),
        ("list.json", ask),
        ("empty.json", ask),
        ("noise.json", ask),
        ("wrong.json", ask),
        ("film.json", ask),
        ("twice.json", ask),
        ("twice.json", ask),
        ("twice.json", ask),
    ]
    media = [
        ("good.pkl", small.pickled({"image_0": small.picture("red")})),
        ("lonely.jpg", small.picture("red")),
        ("broken.jpg", small.picture("red")),
        ("nan.jpg", small.picture("red")),
        ("shape.jpg", small.picture("red")),
        ("evil.pkl", small.pickled({"image_0": Evil()})),
        ("list.pkl", small.pickled([1])),
        ("empty.pkl", small.pickled({"image_0": b""})),
        ("noise.pkl", small.pickled({"image_0": b"no picture" * 9})),
        ("wrong.pkl", small.pickled({"image_7": small.picture("red")})),
        ("film.pkl", small.pickled({"image_0": small.film()})),
        ("twice.jpg", small.picture("red")),
    ]
    assert outcome(read_i4(write_i4({"texts": {TAR: texts}, "media": {TAR: media}}))) == {
        "good": "kept",
        "orphan": "missing_media",
        "lonely": "missing_text",
        "broken": "unreadable_json",
        "nan": "unreadable_json",
        "shape": "bad_conversation",
        "evil": "unsafe_pickle",
        "list": "unreadable_pickle",
        "empty": "media_empty",
        "noise": "media_unreadable",
        "wrong": "missing_media",
        "film": "media_kind_mismatch",
        "twice": "kept",
        "twice~2": "duplicate_member",
        "twice~3": "duplicate_member",
    }
    assert not Path("never").exists()


def test_a_sample_over_the_limit_is_rejected_by_its_headers(write_i4: Write, read_i4: Read, small: Any) -> None:
    tars = {"texts": {TAR: [("a.json", small.asking("x"))]}, "media": {TAR: [("a.pkl", b"\xff" * 4000)]}}
    assert outcome(read_i4(write_i4(tars), max_sample_bytes=4000)) == {"a": "sample_too_large"}


def test_text_keys_are_alternatives_and_media_keys_are_merged(write_i4: Write, read_i4: Read, small: Any) -> None:
    red, blue = small.picture("red"), small.picture("blue")
    tars = {
        "short": {TAR: [("a.json", small.asking("l", "r", text="Short?")), ("b.json", small.asking())]},
        "long": {TAR: [("a.json", small.asking("r", text="Long?"))]},
        "left": {TAR: [("a.pkl", small.pickled({"l": red}))]},
        "right": {TAR: [("a.pkl", small.pickled({"r": blue}))]},
    }
    source = write_i4(tars, text_keys=("short", "long"), media_keys=("left", "right"))
    samples = read_i4(source)
    assert outcome(samples) == {"a": "kept", "b": "missing_text"}
    sample = samples[PREFIX + "a"]
    assert [conversation[0]["content"][-1]["text"] for conversation in sample.conversations] == ["Short?", "Long?"]
    assert sample.conversations[1][0]["content"][0]["image"] == "image_1"


def test_media_keys_with_one_name_for_two_media_are_rejected(write_i4: Write, read_i4: Read, small: Any) -> None:
    pickled = small.pickled({"image_0": small.picture("red")})
    tars = {key: {TAR: [("a.pkl", pickled)]} for key in ("left", "right")}
    source = write_i4({"texts": {TAR: [("a.json", small.asking("image_0"))]}, **tars}, media_keys=("left", "right"))
    assert outcome(read_i4(source)) == {"a": "media_name_collision"}


def test_a_text_only_source_has_no_media_tars(write_i4: Write, read_i4: Read, small: Any) -> None:
    source = write_i4({"texts": {TAR: [("a.json", small.asking())]}}, text_only=True)
    assert outcome(read_i4(source)) == {"a": "kept"}


def test_nested_lists_of_tars_are_read_in_order(write_i4: Write, read_i4: Read, small: Any) -> None:
    names = ["p0/0.tar", "p0/1.tar", "p1/0.tar"]
    texts = {name: [("a.json", small.asking())] for name in names}
    source = write_i4({"texts": texts}, text_only=True, data_list=[names[:2], [[names[2]]]])
    assert list(read_i4(source)) == ["p0/0/a", "p0/1/a", "p1/0/a"]


def test_a_truncated_tar_stops_with_its_path_and_the_offset(write_i4: Write, read_i4: Read, small: Any) -> None:
    source = write_i4({"texts": {TAR: [("a.json", small.asking()), ("b.json", small.asking())]}}, text_only=True)
    tar = Path(source.local_root) / "set" / "texts" / TAR
    tar.write_bytes(tar.read_bytes()[:1100])
    with pytest.raises(DataError, match=r"texts/part_000000/000000\.tar: byte 1,024"):
        read_i4(source)


def test_an_absent_tar_stops_the_build_unless_it_may_be_left_out(write_i4: Write, small: Any) -> None:
    tars = {"texts": {name: [("a.json", small.asking())] for name in ("0.tar", "1.tar")}}
    source = write_i4({**tars, "media": {"0.tar": []}})
    with pytest.raises(DataError, match=r"1 tars of set are not there:\n.*media/1\.tar\n.*allow_missing_tars"):
        plan_i4(source, allow_missing_tars=False)
    parts, notes = plan_i4(source, allow_missing_tars=True)
    assert [[tar.name for tar in part.inputs] for part in parts] == [["texts/0.tar", "media/0.tar"]]
    assert notes == ["set: 1 of 2 data_list entries lack a tar and are left out"]


def test_wdinfo_that_is_missing_or_wrong_is_one_clear_error(write_i4: Write, small: Any) -> None:
    source = write_i4({"texts": {"0.tar": []}}, text_only=True, data_list=["../0.tar"])
    with pytest.raises(DataError, match=r"data_list entry '\.\./0\.tar' has '\.\.' in it"):
        plan_i4(source, allow_missing_tars=False)
    with pytest.raises(DataError, match=r"no wdinfo\.json here"):
        plan_i4(write_i4({"texts": {"0.tar": []}}, wdinfo={"train": "other.json"}), allow_missing_tars=False)
    with pytest.raises(DataError, match="root and data_list"):
        plan_i4(write_i4({"texts": {"0.tar": []}}, data_list=[7]), allow_missing_tars=False)
    with pytest.raises(DataError, match="more than once"):
        plan_i4(write_i4({"texts": {"0.tar": []}}, data_list=["0.tar", "0.tar"]), allow_missing_tars=False)


def test_an_s3_prefix_in_wdinfo_is_stripped(write_i4: Write, read_i4: Read, small: Any) -> None:
    source = write_i4({"texts": {TAR: [("a.json", small.asking())]}}, text_only=True)
    wdinfo = Path(source.local_root) / "set" / "wdinfo.json"
    wdinfo.write_text(json.dumps({"root": "s3://bucket/set", "data_list": [TAR], "total_key_count": 1}))
    assert isinstance(read_i4(source)[PREFIX + "a"], BuiltSample)


def test_a_second_occurrence_never_takes_the_id_of_another_sample(write_i4: Write, read_i4: Read, small: Any) -> None:
    texts = [("a.json", small.asking()), ("a.json", small.asking()), ("a~2.json", small.asking())]
    samples = read_i4(write_i4({"texts": {TAR: texts}}, text_only=True))
    assert outcome(samples) == {"a": "kept", "a~3": "duplicate_member", "a~2": "kept"}


def test_tars_that_differ_after_a_dot_keep_their_samples_apart(write_i4: Write, read_i4: Read, small: Any) -> None:
    names = ("shard.000", "shard.001", "shard.tar")
    source = write_i4({"texts": {name: [("a.json", small.asking())] for name in names}}, text_only=True)
    assert list(read_i4(source)) == ["shard.000/a", "shard.001/a", "shard/a"]


def test_one_tar_under_two_spellings_is_refused(write_i4: Write) -> None:
    source = write_i4({"texts": {"a/0.tar": []}}, text_only=True, data_list=["a/0.tar", "a/./0.tar"])
    with pytest.raises(DataError, match=r"data_list names 'a/0.tar' more than once"):
        plan_i4(source, allow_missing_tars=False)


def test_a_tar_with_a_name_that_no_folder_can_hold_is_missing(write_i4: Write) -> None:
    source = write_i4({"texts": {"0.tar": []}}, text_only=True, data_list=["x" * 300 + ".tar"])
    with pytest.raises(DataError, match=r"1 tars of set are not there"):
        plan_i4(source, allow_missing_tars=False)
