"""Arrow folders as Hugging Face ``datasets`` saves them: order, splits, Image structs, and damage."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vlm_catalogs.errors import ConfigError, DataError
from vlm_catalogs.source import FileSource
from vlm_prep import parts
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.raw_sample import Limits, RawSample
from vlm_prep.readers import plan_files, read_part
from vlm_prep.source_format import resolve_format

LIMITS = Limits(max_sample_bytes=1 << 28)
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
MESSAGE = pa.struct({"content": pa.string(), "role": pa.string()})
SCHEMA = pa.schema({"messages": pa.list_(MESSAGE), "images": pa.list_(IMAGE), "n": pa.int64()})


def source_at(path: Path, **options: Any) -> FileSource:
    fields = {"name": "d", "weight": 1.0, "path": str(path), "format": "auto", "origin": "x.toml:1"}
    return FileSource(**{**fields, **options})


def read(source: FileSource) -> dict[str, BuiltSample]:
    file_format = resolve_format(source)
    raws = [raw for part in plan_files(source, file_format) for raw in read_part(source, file_format, part, LIMITS)]
    built = [build_sample(raw, LIMITS) for raw in raws if isinstance(raw, RawSample)]
    return {sample.origin.sample_id: sample for sample in built if isinstance(sample, BuiltSample)}


def rows(numbers: range, *media: bytes) -> list[dict[str, Any]]:
    messages = [
        {"role": "user", "content": "<image>" * len(media) + "What?"},
        {"role": "assistant", "content": "That."},
    ]
    images = [{"bytes": content, "path": None} for content in media]
    return [{"messages": messages, "images": images, "n": number} for number in numbers]


def save(
    folder: Path, files: dict[str, list[dict[str, Any]]], *, batch_rows: int = 1000, as_file: bool = False
) -> Path:
    """A folder as ``Dataset.save_to_disk`` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        table = pa.Table.from_pylist(content, schema=SCHEMA)
        new = pa.ipc.new_file if as_file else pa.ipc.new_stream
        with new(str(folder / name), SCHEMA) as writer:
            writer.write_table(table, max_chunksize=batch_rows)
    state = {"_data_files": [{"filename": name} for name in files], "_fingerprint": "f", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


@pytest.mark.parametrize("as_file", [False, True])
def test_rows_come_in_the_saved_order_with_their_media(tmp_path: Path, small: Any, as_file: bool) -> None:
    red = small.picture("red")
    save(tmp_path, {"b.arrow": rows(range(3), red), "a.arrow": rows(range(3, 5))}, batch_rows=2, as_file=as_file)
    samples = read(source_at(tmp_path))
    assert list(samples) == [f"b.arrow#{row:09d}" for row in range(3)] + [f"a.arrow#{row:09d}" for row in range(2)]
    assert [json.loads(sample.meta_json)["n"] for sample in samples.values()] == [0, 1, 2, 3, 4]
    assert [[bytes(medium.content) for medium in sample.media] for sample in samples.values()] == [[red]] * 3 + [[]] * 2
    message = json.loads(samples["b.arrow#000000000"].messages_json)[0]
    assert message["content"] == [{"type": "image", "image": "image_0"}, {"type": "text", "text": "What?"}]


def test_parts_are_runs_of_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_at(save(tmp_path, {"a.arrow": rows(range(10))}, batch_rows=4))
    whole = list(read(source))
    monkeypatch.setattr(parts, "TAR_PART_BYTES", 1)
    planned = plan_files(source, "arrow")
    assert [[(i.first_row, i.num_rows) for i in part.inputs] for part in planned] == [[(0, 4)], [(4, 4)], [(8, 2)]]
    assert list(read(source)) == whole
    assert len(whole) == 10


def test_of_several_splits_train_is_read(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    save(tmp_path / "test", {"data.arrow": rows(range(2))})
    with pytest.raises(ConfigError, match="no split 'train' but test"):
        read(source_at(tmp_path))
    save(tmp_path / "train", {"data.arrow": rows(range(3))})
    assert list(read(source_at(tmp_path))) == [f"train/data.arrow#{row:09d}" for row in range(3)]


def test_damage_and_absence_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, {"a.arrow": rows(range(9))}, batch_rows=3) / "a.arrow"
    source, whole = source_at(tmp_path), path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.arrow"):
            read(source)
    path.write_bytes(b"no arrow" + bytes(8))
    with pytest.raises(DataError, match=r"a\.arrow"):
        read(source)
    path.rename(tmp_path / "b.arrow")
    with pytest.raises(DataError, match=r"a\.arrow: not there, but .*state\.json lists it"):
        read(source)
    (tmp_path / "state.json").write_text('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}')
    with pytest.raises(DataError, match="flatten_indices"):
        read(source)
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(DataError, match="not what datasets saves"):
        read(source)
