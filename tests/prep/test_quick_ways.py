"""Conversion takes short cuts for what is ordinary: they give, byte for byte, the part that the careful ways give."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.staged_parts import stage_alone

from vlm_catalogs.source import FileSource, I4Source, Source
from vlm_prep import built_sample, conversation, convert, image_header, plain_run, row_groups
from vlm_prep.i4_inputs import plan_i4
from vlm_prep.mds_shard import ShardWriter
from vlm_prep.raw_sample import Limits
from vlm_prep.readers import file_rows, i4, i4_runs, plan_files
from vlm_prep.tar_members import _TarReader

DEMO = Path(__file__).parents[1] / "demo_data"
TAR = "part_000000/000000.tar"


@contextmanager
def careful_ways() -> Iterator[None]:
    """Within it, no short cut finds anything ordinary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_TarReader, "_members_ahead", lambda self: ([], []))
        patch.setattr(i4, "_common_names", lambda tars: None)
        patch.setattr(i4, "read_run", lambda *_, **__: None)
        for module in (i4, file_rows):
            patch.setattr(module, "read_plain_record", lambda text: None)
        patch.setattr(conversation, "read_plainly", lambda messages: None)
        patch.setattr(built_sample, "_build_plainly", lambda raw: None)
        patch.setattr(image_header, "read_quickly", lambda content, image_format: None)
        yield


def converted(source: Source, folder: Path, max_sample_bytes: int = 1 << 20) -> dict[str, bytes]:
    """File -> bytes, of every part of the source."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file_format = "i4" if isinstance(source, I4Source) else "jsonl"
    parts = (
        plan_i4(source, allow_missing_tars=False)[0] if isinstance(source, I4Source) else plan_files(source, "jsonl")
    )
    files = {}
    for part in parts:
        limits = Limits(max_sample_bytes=max_sample_bytes)
        staged = stage_alone(source, file_format, part, limits=limits, folder=folder)
        files.update({f"{part.name}/{path.name}": path.read_bytes() for path in staged.iterdir()})
    return files


@contextmanager
def runs_of_any_length() -> Iterator[None]:
    """Within it, plain samples are kept in columns however few follow each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "FEW_SAMPLES", 0)
        yield


def assert_same(source: Source, folder: Path) -> dict[str, bytes]:
    """The converted parts, the same all ways."""
    quick = converted(source, folder / "converted")
    with runs_of_any_length():
        in_runs = converted(source, folder / "converted")
    with careful_ways():
        careful = converted(source, folder / "converted")
    assert quick == in_runs == careful
    return quick


@pytest.mark.parametrize("name", ["demo_clipart", "demo_photos", "demo_video"])
def test_of_the_demo_tars(tmp_path: Path, name: str) -> None:
    source = I4Source(
        name=name,
        weight=1.0,
        wdinfo={"train": f"{name}/wdinfo.json"},
        bucket="b",
        local_root=str(DEMO / "i4"),
        origin="cat.py:1",
    )
    assert any(path.endswith(".mds") for path in assert_same(source, tmp_path))


def test_of_the_demo_rows(tmp_path: Path) -> None:
    path = str(next((DEMO / "jsonl").glob("*.jsonl")))
    source = FileSource(name="rows", format=None, weight=1.0, path=path, origin="mix.toml:1")
    assert any(path.endswith(".mds") for path in assert_same(source, tmp_path))


TEXT = st.sampled_from(["", "Hi.", 'Say "ä\\n"\n\x7f', "\0", "<image>", "\U0001f600"])
NAME = st.sampled_from(["image_0", "image_1", "a.png", "video_0", ""])
ITEM = st.one_of(
    TEXT.map(lambda text: {"type": "text", "text": text}),
    NAME.map(lambda name: {"type": "image", "image": name}),
    NAME.map(lambda name: {"type": "video", "video": name}),
    st.sampled_from([{"image": "image_0", "type": "image"}, {"type": "text"}, 7]),
    st.just({"type": "image", "image": "image_0", "fps": 2}),
)  # fmt: skip
MESSAGE = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant", "ü"]),
        st.one_of(TEXT, st.lists(ITEM, max_size=3), st.just([{"type": "image", "image": "image_0"}])),
    ),
    st.sampled_from([{"content": "c", "role": "r"}, {"role": "assistant", "content": "4", "reasoning_content": "2+2"}]),
)
VALUE = st.lists(MESSAGE, max_size=3).flatmap(
    lambda messages: st.sampled_from(
        [messages, messages, {"messages": messages}, {"messages": messages, "id": 7, "more": 10**30}, [messages] * 2]
    )
)
SPELLING = st.sampled_from(
    [
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode(),
        lambda value: b"\xef\xbb\xbf" + json.dumps(value).encode(),
        lambda value: json.dumps(value).encode()[:-1],
        lambda value: json.dumps(value).replace("Hi", "\\ud800").encode(),
    ]
)
STEM = st.sampled_from(["0", "1", "2", "a.b", "folder/0", ".hidden", "ü", "x" * 120])


def media(small: Any) -> list[tuple[str, bytes]]:
    """Suffix and content of members: bare media, dicts of them, what is neither."""
    red, photo = small.picture("red"), small.picture("blue", image_format="JPEG")
    return [
        (".png", red), (".jpg", photo), (".jpg", small.picture("green", image_format="WEBP")), (".mp4", small.film()),
        (".pkl", small.pickled({"image_0": red})), (".pkl", small.pickled({"image_0": red, "image_1": photo})),
        (".pkl", small.pickled({})), (".png", b""), (".png", red[:20]), (".png", b"\x89PNG\r\n\x1a\n" + bytes(2000)),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_of_any_tars(data: st.DataObject, tmp_path: Path, write_i4: Callable[..., I4Source], small: Any) -> None:
    texts, pictures = [], []
    for stem in data.draw(st.lists(STEM, min_size=1, max_size=5, unique=data.draw(st.booleans()))):
        texts.append((stem + ".json", data.draw(SPELLING)(data.draw(VALUE))))
        suffix, content = data.draw(st.sampled_from(media(small)))
        pictures.append((stem + suffix, content))
    order = data.draw(st.sampled_from(["same", "same", "turned", "short"]))
    pictures = {"same": pictures, "turned": pictures[::-1], "short": pictures[1:]}[order]
    source = write_i4({"texts": {TAR: texts}, "media": {TAR: pictures}})
    assert_same(source, tmp_path)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_of_any_rows(data: st.DataObject, tmp_path: Path, small: Any) -> None:
    folder = tmp_path / "rows"
    folder.mkdir(exist_ok=True)
    (folder / "image_0").write_bytes(small.picture("red"))
    (folder / "a.png").write_bytes(small.picture("blue", image_format="JPEG"))
    rows = [json.dumps(value).encode() for value in data.draw(st.lists(VALUE, min_size=1, max_size=4))]
    (folder / "rows.jsonl").write_bytes(b"\n".join(rows))
    assert_same(FileSource(name="rows", format=None, weight=1.0, path=str(folder), origin="mix.toml:1"), tmp_path)


def test_of_what_is_nearly_plain(tmp_path: Path, write_i4: Callable[..., I4Source], small: Any) -> None:
    red = small.picture("red")
    samples = {
        "kind": (small.asking("image_0"), ".mp4", small.film()),
        "name": (small.asking("image_7"), ".png", red),
        "name in a dict": (small.asking("image_7"), ".pkl", small.pickled({"image_0": red})),
        "twice": (small.asking("image_0", "image_0"), ".png", red),
        "two names": (small.asking("image_0", "image_1"), ".png", red),
        "unused": (small.asking(), ".png", red),
        "missing": (small.asking("image_0"), ".pkl", small.pickled({})),
        "alone": (small.asking(), ".pkl", small.pickled({})),
    }
    texts = [(f"{name}.json", text) for name, (text, _, _) in samples.items()]
    pictures = [(name + suffix, content) for name, (_, suffix, content) in samples.items()]
    assert_same(write_i4({"texts": {TAR: texts}, "media": {TAR: pictures}}), tmp_path)


@pytest.mark.parametrize(("rows", "num_bytes"), [(7, 1 << 26), (1000, 2000), (10, 2000)])
def test_of_runs_that_end_in_mid_shard_and_row_group(
    tmp_path: Path,
    write_i4: Callable[..., I4Source],
    small: Any,
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    num_bytes: int,
) -> None:
    texts, pictures = [], []
    for number in range(90):
        is_plain = number % 37 or not number
        texts.append((f"{number}.json", small.asking("image_0", text="x" * (number * 7 % 300))))
        pictures.append((f"{number}.png", small.picture("red", size=(1 + number, 5)) if is_plain else b"no picture"))
    source = write_i4({"texts": {TAR: texts}, "media": {TAR: pictures}})
    monkeypatch.setattr(row_groups, "ROW_GROUP_ROWS", rows)
    monkeypatch.setattr(row_groups, "ROW_GROUP_BYTES", num_bytes)
    monkeypatch.setattr(i4_runs, "RUN_SAMPLES", 24)
    monkeypatch.setattr(convert, "ShardWriter", partial(ShardWriter, size_limit=5000))
    files = assert_same(source, tmp_path)
    assert sum(path.endswith(".mds") for path in files) > 5
    texts_file = io.BytesIO(next(content for path, content in files.items() if path.endswith("texts.parquet")))
    assert pq.ParquetFile(texts_file).num_row_groups > 5


def test_of_large_texts_and_pictures(
    tmp_path: Path, write_i4: Callable[..., I4Source], small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_run, "MAX_TEXT_BYTES", 300)
    monkeypatch.setattr(plain_run, "MAX_MEDIUM_BYTES", 2000)
    texts = [(f"{number}.json", small.asking("image_0", text="x" * 20 * number)) for number in range(20)]
    pictures = [(f"{number}.png", small.picture("red") + bytes(700 * (number % 5))) for number in range(20)]
    assert_same(write_i4({"texts": {TAR: texts}, "media": {TAR: pictures}}), tmp_path)
