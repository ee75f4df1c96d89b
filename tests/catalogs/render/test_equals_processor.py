"""The renderer gives the ids of the family's own processor, for the same media under the same size limits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers.video_utils import VideoMetadata

from vlm_catalogs.render import Renderer
from vlm_catalogs.sample import MediaFacts

Message = dict[str, Any]


def user(*items: Message | str) -> Message:
    return {"role": "user", "content": [text(item) if isinstance(item, str) else item for item in items]}


def assistant(answer: str) -> Message:
    return {"role": "assistant", "content": [text(answer)]}


def text(words: str) -> Message:
    return {"type": "text", "text": words}


def shown(name: str, **options: Any) -> Message:
    kind = name.split("_")[0]
    return {"type": kind, kind: name, **options}


PLAIN = [user("Wie heißt  das?\n\n\tdef f(x):"), assistant("A cat 🐱.\n")]
TURNS = [
    {"role": "system", "content": [text("You are brief.")]},
    *PLAIN,
    user("assistant\nuser\n"),
    assistant("<im_end>"),
    user("a", "b"),
    assistant("\n\nc"),
]
ONE_IMAGE = [user(shown("image_0"), "What is this?"), assistant("A cat.")]
TWO_IMAGES = [user("one", shown("image_0"), "two", shown("image_1")), assistant("A cat."), user("?"), assistant("!")]
LATE_IMAGE = [*PLAIN, user("Look:", shown("image_1")), assistant("A dog.")]
ONE_VIDEO = [user(shown("video_0"), "What happens?"), assistant("A cat moves.")]
MIXED = [user(shown("image_0"), shown("video_0"), shown("image_1"), "Which?"), assistant("None.")]
REPEATED = [user(shown("image_0"), "and again", shown("image_0")), assistant("The same.")]


@pytest.mark.parametrize("messages", [PLAIN, TURNS, ONE_IMAGE, TWO_IMAGES, LATE_IMAGE, MIXED, REPEATED])
@pytest.mark.parametrize("profile", ["normal", "i4"])
def test_ids_equal_the_processors(
    family: str,
    profile: str,
    messages: list[Message],
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    image: Callable[..., MediaFacts],
    video: Callable[..., MediaFacts],
) -> None:
    media = [image("image_0", 97, 61), image("image_1", 33, 250), video("video_0", 120, 67, frames=31, fps=10.0)]
    renderer = renderer_of(family, profile=profile)
    rendered = renderer.render(messages, media)
    assert rendered.input_ids_T.tolist() == reference_of(family).ids(renderer, messages, media)
    assert rendered.total_tokens == rendered.text_tokens + rendered.image_tokens + rendered.video_tokens


@pytest.mark.parametrize("fps", [10.0, 23.976, 30.0])
@pytest.mark.parametrize("frames", [1, 2, 3, 29, 100, 1000])
def test_ids_of_videos_of_any_length_equal_the_processors(
    family: str,
    frames: int,
    fps: float,
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    video: Callable[..., MediaFacts],
) -> None:
    media = [video("video_0", 80, 45, frames=frames, fps=fps)]
    renderer = renderer_of(family, profile="i4")
    ids = renderer.render(ONE_VIDEO, media).input_ids_T.tolist()
    assert ids == reference_of(family).ids(renderer, ONE_VIDEO, media)


@pytest.mark.parametrize("model_max_length", [10, 25, 60, 4096])
def test_a_budget_that_binds_gives_the_processors_ids_too(
    family: str,
    model_max_length: int,
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    image: Callable[..., MediaFacts],
    video: Callable[..., MediaFacts],
) -> None:
    media = [image("image_0", 640, 480), image("image_1", 150, 500), video("video_0", 320, 200, frames=90, fps=15.0)]
    renderer = renderer_of(family, model_max_length=model_max_length)
    ids = renderer.render(MIXED, media).input_ids_T.tolist()
    assert ids == reference_of(family).ids(renderer, MIXED, media)


@pytest.mark.parametrize(
    "options",
    [
        {"max_pixels": 5000},
        {"min_pixels": 40000, "max_pixels": 60000},
        {"fps": 2.5, "max_pixels": 4096},
        {"nframes": 6},
        {"total_pixels": 9000},
        {"video_start": 1.0, "video_end": 2.5},
        {"min_frames": 8, "max_frames": 10},
    ],
)
def test_options_of_an_item_give_the_processors_ids_too(
    family: str,
    options: dict[str, float],
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    image: Callable[..., MediaFacts],
    video: Callable[..., MediaFacts],
) -> None:
    messages = [user(shown("image_0", **options), shown("video_0", **options), "?"), assistant("!")]
    media = [image("image_0", 97, 161), video("video_0", 120, 67, frames=31, fps=10.0)]
    renderer = renderer_of(family)
    ids = renderer.render(messages, media).input_ids_T.tolist()
    assert ids == reference_of(family).ids(renderer, messages, media)


@pytest.mark.parametrize("grid_family", ["qwen3_vl", "cosmos3_edge"])
def test_two_videos_of_a_sample_equal_the_processors(
    grid_family: str,
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    video: Callable[..., MediaFacts],
) -> None:
    media = [video(f"video_{number}", 80, 45 + 9 * number, frames=41, fps=10.0) for number in (0, 1)]
    messages = [user(shown("video_0"), "then", shown("video_1")), assistant("!")]
    renderer = renderer_of(grid_family)
    ids = renderer.render(messages, media).input_ids_T.tolist()
    assert ids == reference_of(grid_family).ids(renderer, messages, media)


def test_each_of_two_omni_videos_is_written_as_the_processor_writes_one(
    renderer_of: Callable[..., Renderer], reference_of: Callable[[str], Any], video: Callable[..., MediaFacts]
) -> None:
    """Omni's processor takes one video a call, so the two are compared one by one."""
    media = [video("video_0", 80, 45, frames=41, fps=10.0), video("video_1", 45, 80, frames=70, fps=30.0)]
    messages = [user(shown("video_0"), "then", shown("video_1")), assistant("!")]
    renderer, processor = renderer_of("nemotron_h_omni"), reference_of("nemotron_h_omni").processor
    rendered = renderer.render(messages, media)
    expected = processor.apply_chat_template(messages)
    for plan, facts in zip(rendered.media, media, strict=True):
        tiles = processor.video_processor(
            videos=[np.zeros((len(plan.frame_indices), facts.height, facts.width, 3), dtype=np.uint8)],
            do_sample_frames=False,
        )
        indices = list(plan.frame_indices)
        metadata = VideoMetadata(fps=facts.fps, total_num_frames=facts.frames, frames_indices=indices)
        written = processor.replace_video_token(tiles, 0, num_frames=len(indices), video_metadata=metadata)
        expected = expected.replace("<video>", written, 1)
    assert rendered.input_ids_T.tolist() == processor.tokenizer(expected)["input_ids"]


def test_a_reasoning_answer_gives_the_processors_ids(
    family: str, renderer_of: Callable[..., Renderer], reference_of: Callable[[str], Any]
) -> None:
    thoughtful = {**assistant("Four."), "reasoning_content": "Two and two."}
    messages = [user("2+2?"), thoughtful, user("2+2?"), thoughtful]
    renderer = renderer_of(family)
    assert renderer.render(messages, []).input_ids_T.tolist() == reference_of(family).ids(renderer, messages, [])
