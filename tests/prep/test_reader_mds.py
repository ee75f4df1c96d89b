"""MDS folders that streaming's own writer made, with other columns and encodings, and damage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streaming import MDSWriter

from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.source import FileSource
from vlm_prep.built_sample import build_sample
from vlm_prep.mds_folder import decoder
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import plan_files, read_part
from vlm_prep.source_format import resolve_format

LIMITS = Limits(max_sample_bytes=1 << 28)
TURNS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]


def source_at(path: Path, **options: Any) -> FileSource:
    fields = {"name": "d", "weight": 1.0, "path": str(path), "format": "auto", "origin": "x.toml:1"}
    return FileSource(**{**fields, **options})


def read(source: FileSource) -> dict[str, Any]:
    file_format = resolve_format(source)
    raws = [raw for part in plan_files(source, file_format) for raw in read_part(source, file_format, part, LIMITS)]
    built = [build_sample(raw, LIMITS) if isinstance(raw, RawSample) else raw for raw in raws]
    return {sample.origin.sample_id: sample for sample in built}


def write(folder: Path, columns: dict[str, str], samples: list[dict[str, Any]], **options: Any) -> Path:
    with MDSWriter(out=str(folder), columns=columns, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return folder


def test_columns_of_other_encodings_are_read(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    columns = {"conversations": "json", "image": "bytes", "n": "int32", "score": "float64", "id": "str", "raw": "pkl"}
    turns = [{"from": "human", "value": "<image> What?"}]
    rows = [
        {"conversations": turns, "image": red, "n": np.int32(n), "score": 0.5, "id": f"i{n}", "raw": {n}}
        for n in (1, 2)
    ]
    samples = read(source_at(write(tmp_path / "d", columns, rows)))
    assert list(samples) == ["shard.00000.mds#000000000", "shard.00000.mds#000000001"]
    assert [sample.source_id for sample in samples.values()] == ["i1", "i2"]
    for number, sample in enumerate(samples.values(), start=1):
        assert [bytes(medium.content) for medium in sample.media] == [red]
        assert json.loads(sample.meta_json) == {"id": f"i{number}", "n": number, "score": 0.5}


def test_messages_as_text_and_other_names_of_columns(tmp_path: Path, small: Any) -> None:
    red = small.picture("red")
    rows = [{"chat": json.dumps(TURNS), "pic": red}, {"chat": "{", "pic": red}]
    source = source_at(write(tmp_path / "d", {"chat": "str", "pic": "bytes"}, rows))
    with pytest.raises(ConfigError, match=r"no column messages or conversations; it has chat, pic"):
        read(source)
    first, second = read(source_at(tmp_path / "d", columns={"messages": "chat", "image": "pic"})).values()
    assert [bytes(medium.content) for medium in first.media] == [red]
    assert isinstance(second, RejectedSample)
    assert second.rejected.reason == "unreadable_json"
    with pytest.raises(ConfigError, match=r"no column 'gone'"):
        read(source_at(tmp_path / "d", columns={"messages": "gone"}))


def test_lists_of_pictures_decode_to_their_files(tmp_path: Path, small: Any) -> None:
    red, blue = small.picture("red", image_format="JPEG"), small.picture("blue", image_format="JPEG")
    source = source_at(
        write(
            tmp_path / "d", {"messages": "json", "images": "jpeg_array"}, [{"messages": TURNS, "images": [red, blue]}]
        )
    )
    (sample,) = read(source).values()
    assert [bytes(medium.content) for medium in sample.media] == [red, blue]


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    assert decoder("pkl") is None
    source = source_at(write(tmp_path / "d", {"messages": "pkl"}, [{"messages": TURNS}]))
    with pytest.raises(ConfigError, match="column 'messages' is of the encoding 'pkl'"):
        read(source)


def test_damage_is_named_with_its_file(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", {"messages": "json"}, [{"messages": TURNS}] * 3)
    source, shard, index = source_at(folder, format="mds"), folder / "shard.00000.mds", folder / "index.json"
    whole, stated = shard.read_bytes(), index.read_text()
    for damaged in (b"", whole[:10], whole[:-1], whole[:-40] + bytes(40), bytes(100)):
        shard.write_bytes(damaged)
        try:
            samples = read(source)
        except DataError as error:
            assert "shard.00000.mds" in str(error)
        else:
            assert [type(sample) for sample in samples.values()][-1] is RejectedSample
    shard.write_bytes(whole)
    for text, message in {
        stated.replace('"samples": 3', '"samples": 4'): "3 samples, index.json says 4",
        stated.replace("shard.00000.mds", "../shard.mds"): "leads out of the folder",
        stated.replace("shard.00000.mds", "shard.00009.mds"): "not there",
        stated.replace('"mds"', '"json"'): "format 'json', expected mds",
        "[]": "not the index of an MDS folder",
    }.items():
        index.write_text(text)
        with pytest.raises(DataError, match=message):
            read(source)
    index.unlink()
    with pytest.raises(DataError, match=r"index\.json: missing"):
        read(source)
