"""The four samples that every family is tried on, as shards hold them and as plain transformers takes them."""

import importlib.util
from collections.abc import Callable
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
from transformers import AutoProcessor
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.render.rendered import MediaPlan, Rendered
from vlm_catalogs.sample import MediaFacts, Sample

from vlm_train.make_tiny import FAMILIES, make_tiny
from vlm_train.models import load_family
from vlm_train.models.family import Family

CONFIG: Any = SimpleNamespace(policy=SimpleNamespace(trust_remote_code=False, model_revision=None))
FPS = 4
FRAME_INDICES = (0, 4, 7, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One sample in both forms."""

    name: str
    sample: Sample
    plain: dict[str, Any]
    """What reference_loops takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A tiny model folder with its family and the samples, rendered."""

    folder: Path
    family: Family
    cases: tuple[Case, ...]
    rendered: tuple[Rendered, ...]

    def load(self, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        return self.family.load(str(self.folder), dtype=dtype, device="cpu", config=CONFIG)

    def encode(self, index: int) -> Any:
        return self.family.encode(self.cases[index].sample, self.rendered[index])

    def batch(self, *indices: int) -> Any:
        return self.family.collate([self.encode(index) for index in indices or range(len(self.cases))])


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
    cases = four_cases()
    rendered = tuple(render(folder, case, reference_loops) for case in cases)
    return Tiny(folder=folder, family=family, cases=cases, rendered=rendered)


def four_cases() -> tuple[Case, ...]:
    wide, tall, square = picture(1, 96, 64), picture(2, 70, 110), picture(3, 50, 50)
    clip = np.stack([np.asarray(picture(10 + number, 64, 48)) for number in range(12)])
    image, text = {"type": "image"}, lambda words: {"type": "text", "text": words}
    return (
        case("image", [image, text("What is it?")], "the answer is a red square", images=[wide]),
        case("images", [image, text("and"), image, text("compare")], "two images", images=[tall, square]),
        case("video", [{"type": "video"}, text("what happens?")], "it moves to the left", clip=clip),
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
    items = iter(f"{kind}_{number}" for number, (kind, *_) in enumerate(files))
    named = [{**item, item["type"]: next(items)} if item["type"] != "text" else item for item in question]
    messages = [
        {"role": "user", "content": named},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    table, offset = [], 0
    for number, (kind, content, (width, height), times) in enumerate(files):
        table.append(
            MediaFacts(
                name=f"{kind}_{number}", kind=kind, format={"image": "png", "video": "mp4"}[kind], offset=offset,
                size=len(content), xxh3_128=content_hash(content), width=width, height=height, **times,
            )
        )  # fmt: skip
        offset += len(content)
    media = b"".join(content for _, content, *_ in files)
    sample = Sample(sample_id=name, dataset="four", messages=messages, media=media, media_table=tuple(table))
    videos = [] if clip is None else [plain_video(files[-1][1], FRAME_INDICES)]
    return Case(name=name, sample=sample, plain={"messages": messages, "images": list(images), "videos": videos})


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


def render(folder: Path, case: Case, reference_loops: ModuleType) -> Rendered:
    processor = AutoProcessor.from_pretrained(folder)
    inputs = reference_loops.model_inputs(processor, case.plain)
    labels = reference_loops.answer_labels(processor.tokenizer, inputs["input_ids"])
    return Rendered(
        input_ids_T=inputs["input_ids"][0].numpy(),
        labels_T=labels[0].numpy(),
        spans=(),
        media=tuple(plan(facts, grid) for facts, grid in zip(case.sample.media_table, grids(inputs), strict=True)),
        text_tokens=0,
        image_tokens=0,
        video_tokens=0,
    )


def grids(inputs: dict[str, torch.Tensor]) -> list[tuple[int, int, int]]:
    found = [
        tuple(grid)
        for name in ("image_grid_thw", "video_grid_thw")
        for grid in inputs.get(name, torch.empty(0)).tolist()
    ]
    found += [(1, *grid) for grid in inputs.get("image_grid_hw", torch.empty(0)).tolist()]
    if "pixel_values_videos" in inputs and "video_grid_thw" not in inputs:
        frames, _, height, width = inputs["pixel_values_videos"].shape
        found.append((-(-frames // 2), height // 16, width // 16))
    return found


def plan(facts: MediaFacts, grid: tuple[int, int, int]) -> MediaPlan:
    frames, rows, columns = grid
    return MediaPlan(
        name=facts.name, kind=facts.kind, height=rows * 16, width=columns * 16, grid=grid,
        frame_indices=FRAME_INDICES if facts.kind == "video" else (), num_tokens=frames * rows * columns // 4,
        num_patches=frames * rows * columns,
    )  # fmt: skip


Render = Callable[[Path, Case], Rendered]
