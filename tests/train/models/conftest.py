"""The four samples that every family is tried on, as shards hold them and as plain transformers takes them."""

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vlm_catalogs.hashing import content_hash
from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_catalogs.render.rendered import Rendered
from vlm_catalogs.sample import MediaFacts, Sample
from vlm_train.make_tiny import FAMILIES, make_tiny
from vlm_train.models import load_family
from vlm_train.models.family import Family

FPS = 4
NUM_FRAMES = 24


def model_settings() -> Any:
    """As much of a Config as loading a model looks at."""
    return SimpleNamespace(
        policy=SimpleNamespace(trust_remote_code=False, model_revision=None, model_safetensor_path=None)
    )


@pytest.fixture
def config() -> Any:
    return model_settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One sample in both forms."""

    name: str
    sample: Sample
    images: tuple[Image.Image, ...]

    def plain(self, rendered: Rendered) -> dict[str, Any]:
        """What reference_loops takes: the pictures, and the frames that the plan names."""
        videos = [
            plain_video(bytes(self.sample.medium(plan.name)), plan.frame_indices)
            for plan in rendered.media
            if plan.kind == "video"
        ]
        return {"messages": self.sample.messages, "images": list(self.images), "videos": videos}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A tiny model folder with its family and the samples, rendered: the four, then one with video and image in it."""

    folder: Path
    family: Family
    renderer: Renderer
    cases: tuple[Case, ...]
    rendered: tuple[Rendered, ...]

    def plain(self, *indices: int) -> list[dict[str, Any]]:
        return [self.cases[index].plain(self.rendered[index]) for index in indices]

    def one_picture(self, width: int, height: int) -> Case:
        return case("any", [{"type": "image"}], "yes", images=[picture(5, width, height)])

    def load(self, dtype: torch.dtype = torch.float32, folder: Path | None = None) -> torch.nn.Module:
        return self.family.load(str(folder or self.folder), dtype=dtype, device="cpu", config=model_settings())

    def encode(self, index: int) -> Any:
        return self.family.encode(self.cases[index].sample, self.rendered[index])

    def batch(self, *indices: int) -> Any:
        return self.rows(*((index,) for index in indices or range(4)))

    def rows(self, *rows: Sequence[int]) -> Any:
        return self.family.collate([[self.encode(index) for index in row] for row in rows])


@pytest.fixture(scope="session")
def reference_loops() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_loops", Path(__file__).parent / "reference_loops.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, reference_loops: ModuleType) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny") / request.param
    make_tiny(request.param, folder)
    family = load_family(str(folder), request.param)
    cases = (*four_cases(), video_and_image())
    settings = RenderSettings(profile="normal", model_max_length=4096, system_prompt=None)
    renderer = load_renderer(str(folder), settings=settings)
    rendered = tuple(renderer.render(case.sample.messages, case.sample.media_table) for case in cases)
    return Tiny(folder=folder, family=family, renderer=renderer, cases=cases, rendered=rendered)


def moving_clip() -> np.ndarray:
    return np.stack([np.asarray(picture(10 + number, 64, 48)) for number in range(NUM_FRAMES)])


def video_and_image() -> Case:
    question = [{"type": "video"}, {"type": "text", "text": "and"}, {"type": "image"}, {"type": "text", "text": "?"}]
    return case("both", question, "they differ", images=[picture(4, 80, 48)], clip=moving_clip())


def four_cases() -> tuple[Case, ...]:
    wide, tall, square = picture(1, 96, 64), picture(2, 70, 110), picture(3, 50, 50)
    image, text = {"type": "image"}, lambda words: {"type": "text", "text": words}
    return (
        case("image", [image, text("What is it?")], "the answer is a red square", images=[wide]),
        case("images", [image, text("and"), image, text("compare")], "two images", images=[tall, square]),
        case("video", [{"type": "video"}, text("what happens?")], "it moves to the left", clip=moving_clip()),
        case("text", [text("hello model")], "general return value"),
    )


def picture(seed: int, width: int, height: int) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def case(name: str, question: list[dict], answer: str, *, images: Any = (), clip: Any = None) -> Case:
    files = [("image", png(image), image.size, {}) for image in images]
    if clip is not None:
        times = {"duration": len(clip) / FPS, "fps": float(FPS), "frames": len(clip)}
        files.append(("video", mp4(clip), clip.shape[2:0:-1], times))
    numbers = {"image": itertools.count(), "video": itertools.count()}
    names = [f"{kind}_{next(numbers[kind])}" for kind, *_ in files]
    unused = names.copy()
    named = [named_item(item, unused) for item in question]
    messages = [
        {"role": "user", "content": named},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    table, offset = [], 0
    for medium, (kind, content, (width, height), times) in zip(names, files, strict=True):
        table.append(
            MediaFacts(
                name=medium, kind=kind, format={"image": "png", "video": "mp4"}[kind], offset=offset,
                size=len(content), xxh3_128=content_hash(content), width=width, height=height, **times,
            )
        )  # fmt: skip
        offset += len(content)
    media = b"".join(content for _, content, *_ in files)
    sample = Sample(sample_id=name, dataset="four", messages=messages, media=media, media_table=tuple(table))
    return Case(name=name, sample=sample, images=tuple(images))


def named_item(item: dict, names: list[str]) -> dict:
    """The item with the next name of its kind, which is taken off the list."""
    if item["type"] == "text":
        return item
    name = next(name for name in names if name.startswith(item["type"]))
    names.remove(name)
    return {**item, item["type"]: name}


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def mp4(frames: np.ndarray) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def plain_video(content: bytes, indices: tuple[int, ...]) -> dict[str, Any]:
    """The frames decoded the obvious way: all of them, then those wanted."""
    with av.open(BytesIO(content)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return {"frames": np.stack([frames[i] for i in indices]), "indices": indices, "fps": FPS, "total": len(frames)}
