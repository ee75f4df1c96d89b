"""Twelve logical samples, brought in every source form, are stored as the same messages, media and media_table.

i4 and LLaVA are held to JSONL in test_source_forms.py, over all samples of the demo.
"""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streaming import MDSWriter

from vlm_catalogs.json_text import dumps
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader
from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"
NAMES = {
    "demo_clipart": ("bunny", "padlock", "flask"),
    "demo_photos": ("flower.closeup", "rocket.thought", "chelsea.small"),
    "demo_video": ("bunny_place", "drawing_and_film", "houses", "lollipops", "sum", "water"),
}
"""Images, films, both, one picture twice, text between pictures, options, thoughts, system prompts, text alone."""

HEAD = """
[custom]
include_video = true

[policy]
model_name_or_path = "tiny"
model_max_length = 1024

[mix]
num_workers = 1
"""

Row = dict[str, Any]
MEDIUM = pa.struct({"bytes": pa.binary(), "path": pa.string()})
TEXTS = {"type": pa.string(), "text": pa.string()}
OPTIONS = {"fps": pa.int64(), "max_pixels": pa.int64()}
CONTENT = pa.list_(pa.struct({**TEXTS, "image": pa.string(), "video": pa.string(), **OPTIONS}))
MESSAGE = pa.struct({"content": CONTENT, "reasoning_content": pa.string(), "role": pa.string()})
MESSAGES = pa.list_(MESSAGE)


def logical_samples() -> list[Row]:
    """The twelve, their content as lists of items; media are named by their file below the demo's folder."""
    rows = []
    for dataset, names in NAMES.items():
        lines = map(json.loads, (DEMO / f"{dataset}.jsonl").read_text().splitlines())
        rows += [
            {"id": row["id"], "messages": [*map(with_items, row["messages"])]} for row in lines if row["id"] in names
        ]
    assert len(rows) == 12
    return rows


def with_items(message: Row) -> Row:
    content = message["content"]
    return {**message, "content": [{"type": "text", "text": content}] if isinstance(content, str) else content}


def media_items(row: Row) -> list[Row]:
    return [item for message in row["messages"] for item in message["content"] if item["type"] != "text"]


def files_of(row: Row, kind: str) -> list[str]:
    """Files in the order of the items, as often as they are used."""
    return [item[kind] for item in media_items(row) if item["type"] == kind]


def respelled(row: Row, spell: Callable[[Row], Row]) -> list[Row]:
    """The messages with each media item in another spelling."""
    return [
        {**message, "content": [item if item["type"] == "text" else spell(item) for item in message["content"]]}
        for message in row["messages"]
    ]


def without_name(item: Row) -> Row:
    return {key: value for key, value in item.items() if key != item["type"]}


def structs(row: Row, kind: str, *, with_path: bool) -> list[Row]:
    return [{"bytes": (DEMO / file).read_bytes(), "path": file if with_path else None} for file in files_of(row, kind)]


def write_jsonl(folder: Path, rows: list[Row]) -> None:
    shutil.copytree(DEMO / "media", folder / "media")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def table_rows(rows: list[Row], *, with_path: bool) -> list[Row]:
    return [
        {
            "id": row["id"],
            "messages": respelled(row, without_name),
            "images": structs(row, "image", with_path=with_path),
            "videos": structs(row, "video", with_path=with_path),
        }
        for row in rows
    ]


SCHEMA = pa.schema({"id": pa.string(), "messages": MESSAGES, "images": pa.list_(MEDIUM), "videos": pa.list_(MEDIUM)})


def write_parquet(folder: Path, rows: list[Row]) -> None:
    table = pa.Table.from_pylist(table_rows(rows, with_path=True), schema=SCHEMA)
    pq.write_table(table, folder / "rows.parquet", row_group_size=5)


def write_parquet_text(folder: Path, rows: list[Row]) -> None:
    """Messages as JSON text, media as bare bytes, under other names."""
    written = [
        {
            "chat": json.dumps(row["messages"]),
            "pictures": [medium["bytes"] for medium in row["images"]],
            "films": [medium["bytes"] for medium in row["videos"]],
        }
        for row in table_rows(rows, with_path=False)
    ]
    pq.write_table(pa.Table.from_pylist(written), folder / "rows.parquet")


def write_arrow(folder: Path, rows: list[Row]) -> None:
    table = pa.Table.from_pylist(table_rows(rows, with_path=False), schema=SCHEMA)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), SCHEMA) as writer:
        writer.write_table(table, max_chunksize=5)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")


def write_webdataset(folder: Path, rows: list[Row]) -> None:
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for row in rows:
            files = list(dict.fromkeys(file for kind in ("image", "video") for file in files_of(row, kind)))
            suffixes = {file: f"{number}{Path(file).suffix}" for number, file in enumerate(files)}

            def spell(item: Row, suffixes: dict[str, str] = suffixes) -> Row:
                return {**without_name(item), "wds_field": suffixes[item[item["type"]]]}

            text = json.dumps({"messages": respelled(row, spell)}).encode()
            members = {f"{row['id']}.{suffix}": (DEMO / file).read_bytes() for file, suffix in suffixes.items()}
            for name, content in {**members, f"{row['id']}.json": text}.items():
                header = tarfile.TarInfo(name)
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    (folder / "meta.json").write_text('{"total_items": 12}')


def write_mds(folder: Path, rows: list[Row]) -> None:
    """Columns of another project: pictures and films as JPEG arrays, which are lists of files."""
    columns = {"messages": "json", "images": "jpeg_array", "videos": "jpeg_array"}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for row in table_rows(rows, with_path=False):
            media = {kind: [bytearray(medium["bytes"]) for medium in row[kind]] for kind in ("images", "videos")}
            writer.write({"messages": row["messages"], **media})


FORMS: dict[str, Callable[[Path, list[Row]], None]] = {
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "parquet_text": write_parquet_text,
    "arrow": write_arrow,
    "webdataset": write_webdataset,
    "mds": write_mds,
}
COLUMNS = {"parquet_text": 'columns = {messages = "chat", images = "pictures", videos = "films"}\n'}


def build(folder: Path, toml: str, tables: list[str]) -> None:
    (folder / toml).write_text(HEAD + "".join(tables))
    subprocess.run([Path(sys.executable).parent / "vlm-prep", "build-mix", toml], cwd=folder, check=True)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of one mix over all forms, and of one over the shards that the first wrote for JSONL."""
    folder = tmp_path_factory.mktemp("golden_forms")
    make_tiny("qwen3_vl", folder / "tiny")
    tables = []
    for form, write in FORMS.items():
        (folder / form).mkdir()
        write(folder / form, logical_samples())
        tables.append(f"[[mix.source]]\nname = '{form}'\npath = '{form}'\n{COLUMNS.get(form, '')}")
    build(folder, "forms.toml", tables)
    (layout,) = (folder / "shards" / "jsonl").iterdir()
    build(folder, "again.toml", [f"[[mix.source]]\nname = 'own_mds'\npath = '{layout.relative_to(folder)}'\n"])
    return folder / "shards"


def stored(sample: Sample) -> tuple[str, str, bytes, str]:
    table = dumps([facts.as_row() for facts in sample.media_table])
    return dumps(sample.messages), dumps(sample.alternatives), bytes(sample.media), table


def read_dataset(shards: Path, dataset: str) -> list[tuple[str, str, bytes, str]]:
    readers = [ShardReader(path) for path in sorted((shards / dataset).glob("*/parts/*/shard.*.mds"))]
    return [stored(reader.read(index)) for reader in readers for index in range(reader.num_samples)]


@pytest.mark.parametrize("form", [*FORMS, "own_mds"])
def test_every_form_stores_the_same_twelve_samples(shards: Path, form: str) -> None:
    expected = read_dataset(shards, "jsonl")
    assert len(expected) == 12
    assert sum(bool(media) for _, _, media, _ in expected) == 10
    assert read_dataset(shards, form) == expected
