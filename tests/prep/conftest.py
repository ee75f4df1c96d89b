"""Small real trees: tars, pictures and a film, and what the readers make of them."""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_catalogs.config import load_config
from vlm_catalogs.source import I4Source
from vlm_prep.build import build_mix
from vlm_prep.built_sample import BuiltSample, build_sample
from vlm_prep.i4_inputs import plan_i4
from vlm_prep.raw_sample import Limits, RawSample, RejectedSample
from vlm_prep.readers import read_part
from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data"
Member = tuple[str, bytes]


def picture(colour: str, *, image_format: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A small encoded image."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, image_format)
    return buffer.getvalue()


def film() -> bytes:
    """A short real video."""
    return min((DEMO / "jsonl" / "media" / "video").glob("*.mp4"), key=lambda path: path.stat().st_size).read_bytes()


def asking(*media: str, text: str = "What is it?") -> bytes:
    """The JSON of a conversation that shows ``media``; names that begin with v are videos."""
    kinds = ["video" if name.startswith("v") else "image" for name in media]
    content = [{"type": kind, kind: name} for kind, name in zip(kinds, media, strict=True)]
    user = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    return json.dumps([user, {"role": "assistant", "content": "A thing."}]).encode()


def write_tar(path: Path, members: list[Member]) -> None:
    """A tar with these members, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def write_i4(tmp_path: Path) -> Callable[..., I4Source]:
    """(data key -> data_list entry -> members) -> the source; ``options`` are fields of I4Source."""

    def write(tars: Mapping[str, Mapping[str, list[Member]]], *, data_list: Any = None, **options: Any) -> I4Source:
        root = tmp_path / "bucket"
        for key, entries in tars.items():
            for entry, members in entries.items():
                write_tar(root / "set" / key / entry, members)
        entries = list(next(iter(tars.values()))) if data_list is None else data_list
        wdinfo = {"root": "set", "data_list": entries, "total_key_count": 0}
        (root / "set").mkdir(parents=True, exist_ok=True)
        (root / "set" / "wdinfo.json").write_text(json.dumps(wdinfo))
        fields = {"bucket": "b", "local_root": str(root), "origin": "cat.py:1", "weight": 1.0, "name": "set"}
        return I4Source(**{**fields, "wdinfo": {"train": "set/wdinfo.json"}, **options})

    return write


@pytest.fixture
def read_i4() -> Callable[..., dict[str, BuiltSample | RejectedSample]]:
    """Source -> sample_id -> what conversion makes of it."""

    def read(source: I4Source, *, max_sample_bytes: int = 1 << 28) -> dict[str, BuiltSample | RejectedSample]:
        limits = Limits(max_sample_bytes=max_sample_bytes)
        parts, _ = plan_i4(source, allow_missing_tars=False)
        raws = [raw for part in parts for raw in read_part(source, "i4", part, limits)]
        built = [build_sample(raw, limits) if isinstance(raw, RawSample) else raw for raw in raws]
        assert len({sample.origin.sample_id for sample in built}) == len(built)
        return {sample.origin.sample_id: sample for sample in built}

    return read


@pytest.fixture(scope="session")
def small() -> Any:
    """The makers of small content, for tests of this folder."""

    class Makers:
        picture = staticmethod(picture)
        film = staticmethod(film)
        asking = staticmethod(asking)
        write_tar = staticmethod(write_tar)
        pickled = staticmethod(pickle.dumps)

    return Makers


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``mix.toml``, shards and mixes of the demo's JSONL data; for copying, not for changing."""
    folder = tmp_path_factory.mktemp("built")
    make_tiny("qwen3_vl", folder / "tiny")
    head = '[policy]\nmodel_name_or_path = "tiny"\nmodel_max_length = 1024\n[custom]\ninclude_video = true\n'
    files = sorted((DEMO / "jsonl").glob("*.jsonl"))
    sources = [f"[[mix.source]]\nname = '{file.stem}'\npath = '{file}'\n" for file in files]
    (folder / "mix.toml").write_text(head + "".join(sources))
    before = Path.cwd()
    os.chdir(folder)
    try:
        build_mix(load_config(Path("mix.toml")))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def built(built_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``mix.toml``, ``shards`` and ``mixes`` of its own."""
    shutil.copytree(built_once, tmp_path / "built")
    monkeypatch.chdir(tmp_path / "built")
    return tmp_path / "built"
