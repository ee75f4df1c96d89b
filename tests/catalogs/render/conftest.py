"""Tiny checkpoints, their renderers, and the families' own processors to compare with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_catalogs.render.media_omni import frame_target, patch_limits
from vlm_catalogs.render.media_options import read_media_options
from vlm_catalogs.render.media_qwen import clip_limits, image_limits
from vlm_catalogs.render.settings import media_budget
from vlm_catalogs.sample import MediaFacts
from vlm_train.make_tiny import make_tiny

FAMILIES = ("qwen3_vl", "nemotron_h_omni", "cosmos3_edge")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """family -> folder of its tiny checkpoint, made once."""
    root, made = tmp_path_factory.mktemp("tiny"), {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = root / family
            make_tiny(family, made[family])
        return made[family]

    return folder


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def renderer_of(tiny: Callable[[str], Path]) -> Callable[..., Renderer]:
    """(family, **settings) -> renderer; by default normal data at 1,024 tokens."""

    def load(family: str, **settings: Any) -> Renderer:
        values = {"profile": "normal", "model_max_length": 1024, **settings}
        return load_renderer(str(tiny(family)), settings=RenderSettings(**values))

    return load


@pytest.fixture
def copy_with(tiny: Callable[[str], Path], tmp_path: Path) -> Callable[..., Renderer]:
    """(family, chat_template=..., **{file stem: changed keys}) -> renderer of a changed copy of the tiny checkpoint."""

    def load(
        family: str, *, chat_template: str | None = None, model_max_length: int = 1024, **changes: dict[str, Any]
    ) -> Renderer:
        folder = tmp_path / "checkpoint"
        shutil.copytree(tiny(family), folder, ignore=shutil.ignore_patterns("*.safetensors"))
        if chat_template is not None:
            (folder / "chat_template.jinja").write_text(chat_template)
        for stem, changed in changes.items():
            path = folder / f"{stem}.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
        return load_renderer(str(folder), settings=RenderSettings(profile="normal", model_max_length=model_max_length))

    return load


class Reference:
    """The ids that a family's own processor of transformers gives for real pixels under the renderer's size limits."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family = family
        self.processor = AutoProcessor.from_pretrained(folder)

    def ids(self, renderer: Renderer, messages: list[dict[str, Any]], media: list[MediaFacts]) -> list[int]:
        facts = {medium.name: medium for medium in media}
        plans = {plan.name: plan for plan in renderer.render(messages, media).media}
        items = [item for message in messages for item in message["content"] if item["type"] != "text"]
        images = [pixels(facts[item["image"]]) for item in items if item["type"] == "image"]
        clips = [facts[item["video"]] for item in items if item["type"] == "video"]
        frames = [[pixels(clip)] * len(plans[clip.name].frame_indices) for clip in clips]
        metadata = [
            VideoMetadata(
                fps=clip.fps,
                total_num_frames=clip.frames,
                duration=clip.duration,
                frames_indices=list(plans[clip.name].frame_indices),
            )
            for clip in clips
        ]
        text = self.processor.apply_chat_template(messages)
        limits = self._limits(renderer, items, [len(clip) for clip in frames])
        given: dict[str, Any] = {"images": images or None}
        if clips and self.family == "nemotron_h_omni":
            given |= {"videos": [np.stack(frames[0])], "video_metadata": metadata[0], "do_sample_frames": False}
        elif clips:
            given |= {"videos": [np.stack(clip) for clip in frames], "video_metadata": metadata}
            limits |= {"videos_kwargs": {"do_sample_frames": False, "return_metadata": True, **limits["videos_kwargs"]}}
        return list(self.processor(text=[text], **given, **limits)["input_ids"][0])

    def _limits(self, renderer: Renderer, items: list[dict[str, Any]], num_frames: list[int]) -> dict[str, Any]:
        """The arguments that give this call the limits of the first image and the first video."""
        planner: Any = renderer._planner
        num_images = sum(item["type"] == "image" for item in items)
        budget = media_budget(renderer.settings, num_images=num_images, num_videos=len(num_frames))
        image = read_media_options(next((item for item in items if item["type"] == "image"), {}))
        video = read_media_options(next((item for item in items if item["type"] == "video"), {}))
        if self.family == "nemotron_h_omni":
            low, high = patch_limits(planner.image, image, budget.image_tokens)
            if num_frames:
                groups = num_frames[0] // planner.frames.factor
                target = frame_target(planner.video, video, budget.video_tokens, groups)
                self.processor.video_processor.video_target_num_patches = target
            return {"min_num_patches": low, "max_num_patches": high}
        low, high = image_limits(planner.image, image, budget.image_tokens)
        limits: dict[str, Any] = {"images_kwargs": {"size": {"shortest_edge": low, "longest_edge": high}}}
        if num_frames:
            low, high = clip_limits(planner.video, video, budget.video_tokens, num_frames[0])
            limits["videos_kwargs"] = {"size": {"shortest_edge": low, "longest_edge": high}}
        if num_frames and self.family == "qwen3_vl":
            limits["videos_kwargs"]["cap_pixels_per_frame"] = False
        return limits


def pixels(facts: MediaFacts) -> np.ndarray[Any, Any]:
    """Noise of the medium's size: one image, or one frame."""
    return np.random.default_rng(7).integers(0, 255, (facts.height, facts.width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def reference_of(tiny: Callable[[str], Path]) -> Callable[[str], Reference]:
    made: dict[str, Reference] = {}
    return lambda family: made.setdefault(family, Reference(family, tiny(family)))


def _image(name: str, width: int, height: int) -> MediaFacts:
    return MediaFacts(
        name=name, kind="image", format="png", offset=0, size=1, xxh3_128="0" * 32, width=width, height=height
    )


def _video(name: str, width: int, height: int, *, frames: int, fps: float) -> MediaFacts:
    return MediaFacts(
        name=name,
        kind="video",
        format="mp4",
        offset=0,
        size=1,
        xxh3_128="0" * 32,
        width=width,
        height=height,
        duration=frames / fps,
        fps=fps,
        frames=frames,
    )


@pytest.fixture(scope="session")
def image() -> Callable[[str, int, int], MediaFacts]:
    return _image


@pytest.fixture(scope="session")
def video() -> Callable[..., MediaFacts]:
    return _video
