"""Frame sampling, item options and budgets."""

from collections.abc import Callable

import pytest

from vlm_catalogs.render import RenderProblem, RenderSettings
from vlm_catalogs.render.frames import FrameRules, sample_frames
from vlm_catalogs.render.media_options import NO_OPTIONS, MediaOptions, read_media_options
from vlm_catalogs.render.settings import media_budget
from vlm_catalogs.sample import MediaFacts

RULES = FrameRules(min_frames=4, max_frames=768, factor=2)


@pytest.mark.parametrize(
    ("frames", "source_fps", "fps", "expected"),
    [
        (300, 30.0, 1.0, 10),  # ten seconds
        (330, 30.0, 1.0, 10),  # eleven: a whole number of pairs
        (30, 30.0, 1.0, 4),  # one second: the processor's minimum
        (3, 30.0, 1.0, 2),  # fewer frames than the minimum
        (1, 30.0, 1.0, 2),  # one frame, shown twice
        (90000, 30.0, 1.0, 768),  # fifty minutes: the processor's maximum
        (100, 2.0, 4.0, 100),  # never more than there are
    ],
)
def test_the_number_of_frames_follows_the_rate_within_bounds(
    frames: int, source_fps: float, fps: float, expected: int, video: Callable[..., MediaFacts]
) -> None:
    facts = video("video_0", 64, 64, frames=frames, fps=source_fps)
    sampled = sample_frames(facts, NO_OPTIONS, fps=fps, rules=RULES)
    assert len(sampled.indices) == expected
    assert sampled.indices[0] == 0
    assert sampled.indices[-1] == frames - 1
    assert list(sampled.indices) == sorted(sampled.indices)
    assert sampled.timestamps == tuple(index / source_fps for index in sampled.indices)


def test_only_the_asked_seconds_are_sampled(video: Callable[..., MediaFacts]) -> None:
    facts = video("video_0", 64, 64, frames=100, fps=10.0)
    sampled = sample_frames(facts, MediaOptions(video_start=2.0, video_end=6.0, fps=2.0), fps=1.0, rules=RULES)
    assert (sampled.indices[0], sampled.indices[-1], len(sampled.indices)) == (20, 60, 8)


@pytest.mark.parametrize(("start", "end"), [(5.0, 2.0), (10.0, None), (99.0, 120.0), (3.0, 3.0)])
def test_an_empty_range_of_seconds_leaves_by_name(
    start: float, end: float | None, video: Callable[..., MediaFacts]
) -> None:
    facts = video("video_0", 64, 64, frames=100, fps=10.0)
    with pytest.raises(RenderProblem, match="bad_media_option: video_0: no frame from"):
        sample_frames(facts, MediaOptions(video_start=start, video_end=end), fps=1.0, rules=RULES)


@pytest.mark.parametrize("missing", ["frames", "fps"])
def test_a_video_whose_header_names_no_frames_leaves_by_name(missing: str, video: Callable[..., MediaFacts]) -> None:
    row = video("video_0", 64, 64, frames=100, fps=10.0).as_row()
    facts = MediaFacts.from_row({**row, missing: None})
    with pytest.raises(RenderProblem, match="video_without_frames"):
        sample_frames(facts, NO_OPTIONS, fps=1.0, rules=RULES)


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0},
        {"fps": "2"},
        {"fps": True},
        {"fps": float("nan")},
        {"fps": 2, "nframes": 4},
        {"max_pixels": 0},
        {"min_pixels": -3},
        {"min_pixels": 9, "max_pixels": 4},
        {"resized_height": 64},
        {"video_start": "0:10"},
    ],
)
def test_options_that_mean_nothing_leave_by_name(options: dict[str, object]) -> None:
    with pytest.raises(RenderProblem, match="bad_media_option"):
        read_media_options({"type": "video", "video": "video_0", **options})


def test_keys_that_are_no_options_are_left_alone() -> None:
    item = {"type": "image", "image": "image_0", "caption": "x", "min_pixels": 4096.0, "fps": None}
    assert read_media_options(item) == MediaOptions(min_pixels=4096)


def test_normal_media_share_nine_tenths_of_the_length() -> None:
    settings = RenderSettings(profile="normal", model_max_length=4096)
    budget = media_budget(settings, num_images=3, num_videos=1)
    assert budget.image_tokens == budget.video_tokens == pytest.approx(4096 * 0.9 / 4)
    assert budget.fps == 1


def test_i4_images_share_8192_tokens_and_each_video_has_as_many() -> None:
    settings = RenderSettings(profile="i4", model_max_length=100_000)
    budget = media_budget(settings, num_images=4, num_videos=2)
    assert (budget.image_tokens, budget.video_tokens, budget.fps) == (2048, 8192, 4)


def test_an_i4_budget_never_exceeds_what_fits() -> None:
    settings = RenderSettings(profile="i4", model_max_length=4096)
    budget = media_budget(settings, num_images=1, num_videos=1)
    assert budget.image_tokens == budget.video_tokens == pytest.approx(4096 * 0.9 / 2)
