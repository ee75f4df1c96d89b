"""Random tars, JSON, tables and wdinfo files through the real conversion: no traceback, and no sample is lost.

Each example is converted as a build converts it. What may come of it: an error of the user (UserError), or parts in
which every sample is kept in a shard or rejected for a named reason. ``VLM_FUZZ_EXAMPLES`` raises the number of
examples, which are drawn anew in every run then; the seed of a failure is printed by hypothesis.
"""

import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_catalogs.config import Config, load_config
from vlm_catalogs.config.sections import MixSection
from vlm_catalogs.errors import UserError
from vlm_catalogs.shard_reader import ShardReader
from vlm_catalogs.source import FileSource, I4Source, Source
from vlm_catalogs.sources import resolve_sources
from vlm_prep.convert import convert_part, convert_task
from vlm_prep.part_store import LocalStore
from vlm_prep.raw_sample import Limits
from vlm_prep.reasons import MEANINGS
from vlm_prep.source_plan import plan_source, read_parts

EXAMPLES = int(os.environ.get("VLM_FUZZ_EXAMPLES", "0"))


def fuzz(examples: int) -> Callable[[Any], Any]:
    """So many examples, the same in every run; many more, and others, where the environment asks for it."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def picture(image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(buffer, image_format)
    return buffer.getvalue()


PICTURE, PHOTO = picture(), picture("JPEG")
FILM = min((Path(__file__).parents[1] / "demo_data" / "jsonl" / "media" / "video").glob("*.mp4")).read_bytes()

# ---------------------------------------------------------------- what is drawn

ODD_TEXTS = st.sampled_from(
    ["", " ", "a.b", "<image>", "<image><video>", "image_0", "video_0", "\ud800", "\0", "é" * 200]
)
TEXTS = ODD_TEXTS | st.text(max_size=8)
NUMBERS = st.sampled_from([0, -1, 1, 2**63, -(2**64), 10**40, 0.5, float("nan"), float("inf"), 1e308])
JUNK = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def chat(*media: str) -> list[Any]:
    kinds = ["video" if name.startswith("v") else "image" for name in media]
    items = [{"type": kind, kind: name} for kind, name in zip(kinds, media, strict=True)]
    user = {"role": "user", "content": [*items, {"type": "text", "text": "What?"}]}
    return [{"role": "system", "content": "Be brief."}, user, {"role": "assistant", "content": "That."}]


LLAVA = {
    "id": "x1",
    "image": ["a.png", "b.jpg"],
    "conversations": [{"from": "human", "value": "<image>\n<image> What?"}, {"from": "gpt", "value": "That."}],
}
SOUND = (
    chat(),
    chat("image_0"),
    [chat("image_0"), chat("image_0")],
    {"messages": chat("image_0", "video_0"), "id": 7},
    {"messages": chat("a.png")},
    {
        "messages": [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "That."}],
        "images": ["a.png"],
    },
    LLAVA,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path into a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def put(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = put(value[path[0]], path[1:], other)
    return copy


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """The value with up to three of its inner values in the place of junk."""
    for _ in range(draw(st.integers(0, 3))):
        value = put(value, draw(st.sampled_from(list(places(value)))), draw(JUNK))
    return value


SAMPLES = st.sampled_from(SOUND).flatmap(changed) | JUNK


class Content(bytes):
    """Bytes whose repr is short: a failure prints it, and the blob that draws it again."""

    def __repr__(self) -> str:
        return f"<{len(self):,} bytes: {self[:40]!r}>"


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with a few flipped, put in or cut out, or cut short; often as they are."""
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 3]))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["flip", "insert", "remove", "cut"])):
            case "flip":
                content = content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
            case "insert":
                content = content[:at] + draw(st.binary(max_size=5)) + content[at:]
            case "remove":
                content = content[:at] + content[at + draw(st.integers(1, 600)) :]
            case _:
                content = content[:at]
    return Content(content)


JSON_TEXTS = SAMPLES.map(lambda value: json.dumps(value).encode()) | st.sampled_from(
    [b"", b"{", b"null", b"[" * 5000, b"\xff\xfe[]", b"\xef\xbb\xbf[]", b'{"a":1,"a":2}', b"[1e999]"]
)
PICKLES = st.sampled_from([{"image_0": PICTURE}, {"image_0": PICTURE, "video_0": FILM}, {"image_0": bytearray(PHOTO)}])
MEDIA = (
    st.sampled_from([PICTURE, PHOTO, FILM, b"", b"GIF89a", b"not a medium"])
    | st.sampled_from([PICTURE, PHOTO, FILM]).flatmap(damaged)
    | PICKLES.flatmap(changed).map(pickle.dumps).flatmap(damaged)
    | JUNK.map(pickle.dumps)
)
STEMS = st.sampled_from(
    ["a", "b", "a.b", "d/a", "./a", "é", "n" * 150, "x\ny", " ", "", ".", "..", "/a", "a/", "~2", "a~2"]
)
ENDINGS = st.sampled_from(
    [".json", ".pkl", ".png", ".jpg", ".mp4", ".pickle", "", ".", ".JSON", ".txt", ".image_0.png"]
)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


@st.composite
def tars(draw: st.DrawFn, contents: st.SearchStrategy[bytes], endings: st.SearchStrategy[str]) -> bytes:
    """A tar of a few members under odd names, sometimes with damage."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=draw(FORMATS)) as tar:
        for _ in range(draw(st.integers(0, 5))):
            info, content = tarfile.TarInfo(draw(STEMS) + draw(endings)), draw(contents)
            if draw(st.integers(0, 9)) == 0:
                info.type = draw(st.sampled_from([tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE]))
                tar.addfile(info)
                continue
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return draw(damaged(buffer.getvalue()))


# ---------------------------------------------------------------- what must come of it


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder that is the working directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="vlm-fuzz-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


CONFIG = Config(path=Path("mix.toml"), mix=MixSection(name="mix"))


def convert(source: Source) -> list[dict[str, Any]] | None:
    """The rows of samples.parquet, checked against the shards; None where it ends with an error of the user."""
    staging = Path("staging")
    staging.mkdir()
    try:
        plan = plan_source(source, CONFIG, LocalStore(Path("shards")))
        for part in plan.parts:
            convert_part(convert_task(plan, part, limits=Limits(max_sample_bytes=1 << 20), staging=staging))
        records = read_parts(plan)
    except UserError as error:
        assert str(error).strip()
        return None
    rows = []
    for folder, record in zip(plan.folders(), records, strict=True):
        of_part = pq.read_table(folder / "samples.parquet").to_pylist()
        kept = [row for row in of_part if row["status"] == "kept"]
        assert (len(kept), len(of_part) - len(kept)) == (record.num_kept, record.num_rejected)
        assert {row["reason"] for row in of_part if row["status"] == "rejected"} <= set(MEANINGS)
        shards = [ShardReader(path) for path in sorted(folder.glob("shard.*.mds"))]
        stored = [shard.read(index).sample_id for shard in shards for index in range(shard.num_samples)]
        assert stored == [row["sample_id"] for row in kept]
        rows += of_part
    assert len({row["sample_id"] for row in rows}) == len(rows)
    shutil.rmtree("staging")
    return rows


def i4_source(**fields: Any) -> I4Source:
    sound = {"name": "set", "weight": 1.0, "bucket": "b", "local_root": "bucket", "origin": "cat.py:1"}
    return I4Source(**{**sound, "wdinfo": {"train": "set/wdinfo.json"}, **fields})


def file_source(path: str, file_format: str) -> FileSource:
    return FileSource(name="set", weight=1.0, path=path, format=file_format, origin="mix.toml:1")


def write(path: str, content: bytes) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def write_i4(
    texts: bytes, media: bytes, *, wdinfo: bytes = b'{"root": "set", "data_list": ["0.tar"], "total_key_count": 1}'
) -> None:
    write("bucket/set/texts/0.tar", texts)
    write("bucket/set/media/0.tar", media)
    write("bucket/set/wdinfo.json", wdinfo)


def readable_names(content: bytes) -> list[str] | None:
    """What a tar holds, folders apart, as Python's tarfile lists it; None where it finds damage."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            return [member.name for member in tar if not member.isdir()]
    except (tarfile.TarError, ValueError, OverflowError, UnicodeError, EOFError):
        return None


@fuzz(60)
@given(
    texts=tars(JSON_TEXTS, st.just(".json") | ENDINGS), media=tars(MEDIA, st.sampled_from([".pkl", ".png"]) | ENDINGS)
)
def test_i4_tars(texts: bytes, media: bytes) -> None:
    with workplace():
        write_i4(texts, media)
        rows = convert(i4_source())
        if rows is not None and (names := readable_names(texts)) is not None:
            assert len(rows) >= sum(name.endswith(".json") for name in names)


@fuzz(40)
@given(tars(JSON_TEXTS | MEDIA, st.just(".json") | ENDINGS))
def test_webdataset_tars(content: bytes) -> None:
    with workplace():
        write("set/0.tar", content)
        rows = convert(file_source("set", "webdataset"))
        if rows is not None and (names := readable_names(content)) is not None:
            texts = [name for name in names if name.lower().endswith(".json")]
            assert sorted(row["member"] for row in rows if row["member"].lower().endswith(".json")) == sorted(texts)


WDINFO = {
    "root": "set",
    "data_list": ["0.tar", ["1.tar"]],
    "total_key_count": 1,
    "chunk_size": 5,
    "data_list_key_count": [1],
}


@fuzz(60)
@given(changed(WDINFO).map(lambda value: json.dumps(value).encode()).flatmap(damaged) | JSON_TEXTS)
def test_wdinfo_files(wdinfo: bytes) -> None:
    with workplace():
        write_i4(b"\0" * 1024, b"\0" * 1024, wdinfo=wdinfo)
        shutil.copytree("bucket/set/texts", "bucket/texts")
        convert(i4_source())


@fuzz(60)
@given(st.lists(JSON_TEXTS, max_size=6).map(b"\n".join).flatmap(damaged))
def test_jsonl_files(content: bytes) -> None:
    with workplace():
        write("set/a.png", PICTURE)
        write("set/b.jpg", PHOTO)
        write("set/rows.jsonl", content)
        rows = convert(file_source("set/rows.jsonl", "jsonl"))
        if rows is not None:
            assert len(rows) == sum(bool(line.strip()) for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))


@fuzz(60)
@given(st.lists(SAMPLES, max_size=5).map(lambda values: json.dumps(values).encode()).flatmap(damaged))
def test_llava_arrays(content: bytes) -> None:
    with workplace():
        write("set/a.png", PICTURE)
        write("set/b.jpg", PHOTO)
        write("set/rows.json", content)
        rows = convert(file_source("set/rows.json", "llava"))
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            return
        assert rows is None or len(rows) == len(values)


TABLE_ROWS = [
    {"messages": json.dumps(chat()), "images": [{"bytes": PICTURE, "path": "a.png"}]},
    {
        "messages": json.dumps(chat("image_0")),
        "images": [{"bytes": PICTURE, "path": None}, {"bytes": None, "path": "a.png"}],
    },
    {"messages": None, "images": None},
]


def parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(TABLE_ROWS), buffer)
    return buffer.getvalue()


def arrow_bytes() -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(TABLE_ROWS)
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


@fuzz(60)
@given(st.sampled_from([("rows.parquet", parquet_bytes()), ("rows.arrow", arrow_bytes())]), st.data())
def test_tables(kind: tuple[str, bytes], data: st.DataObject) -> None:
    name, content = kind
    with workplace():
        write("set/a.png", PICTURE)
        write(f"set/{name}", data.draw(damaged(content)))
        convert(file_source(f"set/{name}", name.partition(".")[2]))


CATALOG = b"""from projects.cosmos3.vlm.datasets.utils import DataSource
base = {'set': 2.0 * 3, **{f'x{i}': i for i in range(2)}}
DATAINFO = {
    'set': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'], media_keys=['media']),
    'x1': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'], media_keys=None, text_only=True),
}
weights = {key: value for key, value in base.items() if value}
subsample_config = {'set': {'train': 0.5}}
"""
TOML = b"""[custom]
use_i4 = true
i4_data_source = "listed.weights"
include_video = true
[policy]
model_name_or_path = "nvidia/Nemotron-VL"
model_max_length = 1024
[train]
epoch = 1
[mix]
i4_root = "bucket"
[[mix.source]]
name = "rows"
path = "rows.jsonl"
weight = 2
[mix.select.where]
a = "num_images > 0"
"""


@fuzz(60)
@given(damaged(CATALOG), damaged(TOML))
def test_catalogue_modules_and_tomls(catalog: bytes, toml: bytes) -> None:
    with workplace():
        write("listed.py", catalog)
        write("mix.toml", toml)
        write("rows.jsonl", b"")
        try:
            resolve_sources(load_config(Path("mix.toml")))
        except UserError as error:
            assert str(error).strip()


def test_the_fuzz_finds_what_it_should() -> None:
    """Sound input is kept whole, so that the tests above do not only see errors."""
    with workplace():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("a.json")
            text = json.dumps(chat("image_0")).encode()
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
        media = io.BytesIO()
        with tarfile.open(fileobj=media, mode="w") as tar:
            info = tarfile.TarInfo("a.pkl")
            content = pickle.dumps({"image_0": PICTURE})
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        write_i4(buffer.getvalue(), media.getvalue())
        rows = convert(i4_source())
        assert rows is not None
        assert [row["status"] for row in rows] == ["kept"]
