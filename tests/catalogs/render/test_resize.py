"""Sizes equal those of the processors of transformers over many random sizes."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from transformers.models.cosmos3_edge.image_processing_cosmos3_edge import Cosmos3EdgeImageProcessor
from transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni import get_patch_grid_size
from transformers.models.nemotron_h_omni.video_processing_nemotron_h_omni import (
    NemotronH_Omni_Reasoning_V3VideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from vlm_catalogs.render import Renderer, RenderProblem, resize
from vlm_catalogs.render.media_options import NO_OPTIONS
from vlm_catalogs.render.media_qwen import image_limits
from vlm_catalogs.render.settings import media_budget
from vlm_catalogs.sample import MediaFacts


def random_sizes(number: int) -> Iterator[tuple[int, int, random.Random]]:
    """(height, width, generator): from one pixel to 5,000, half of them small."""
    dice = random.Random(20260101)
    for index in range(number):
        top = 5000 if index % 2 else 200
        yield dice.randint(1, top), dice.randint(1, top), dice


def too_long(height: int, width: int) -> bool:
    return max(height, width) / min(height, width) > resize.MAX_ASPECT_RATIO


def test_image_sizes_equal_the_qwen_image_processors() -> None:
    for height, width, dice in random_sizes(400):
        low = dice.choice([1024, 56 * 56, 65536])
        high = low * dice.choice([1, 4, 200])
        processor = Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": low, "longest_edge": high})
        if too_long(height, width):
            continue
        size = resize.image_size(height, width, factor=32, min_pixels=low, max_pixels=high)
        assert size[0] * size[1] // 256 == processor.get_number_of_image_patches(height, width), (height, width)


def test_image_sizes_equal_the_edge_image_processors() -> None:
    processor = Cosmos3EdgeImageProcessor(size={"shortest_edge": 4096, "longest_edge": 512 * 512})
    for height, width, _ in random_sizes(200):
        if max(height, width) > 100 * min(height, width):
            continue
        size = resize.clip_size(1, height, width, temporal_factor=1, factor=32, min_pixels=4096, max_pixels=512 * 512)
        assert size[0] * size[1] // 256 == processor.get_number_of_image_patches(height, width), (height, width)


def test_frame_sizes_equal_the_qwen_video_processors() -> None:
    for height, width, dice in random_sizes(400):
        num_frames = 2 * dice.randint(1, 60)
        low, high = 4096, dice.choice([65536, 768 * 1024, 24 * 1024 * 1024])
        processor = Qwen3VLVideoProcessor(size={"shortest_edge": low, "longest_edge": high}, cap_pixels_per_frame=False)
        if max(height, width) > 100 * min(height, width):
            continue
        size = resize.clip_size(
            num_frames, height, width, temporal_factor=2, factor=32, min_pixels=low, max_pixels=high
        )
        patches = processor.get_num_of_video_patches(num_frames, height, width)
        assert num_frames // 2 * size[0] * size[1] // 256 == patches, (num_frames, height, width)


def test_patch_grids_equal_the_omni_image_processors() -> None:
    for height, width, dice in random_sizes(400):
        low = dice.choice([4, 256, 1024])
        high = low * dice.choice([1, 2, 13])
        limits = {"patch_size": 16, "merge_size": 2, "min_num_patches": low, "max_num_patches": high}
        try:
            grid = resize.patch_grid(height, width, **limits)
        except RenderProblem:
            assert omni_gives_no_patch(height, width, limits), (height, width, limits)
            continue
        assert grid == get_patch_grid_size(height, width, **limits), (height, width, limits)


def omni_gives_no_patch(height: int, width: int, limits: dict[str, int]) -> bool:
    try:
        return 0 in get_patch_grid_size(height, width, **limits)
    except ZeroDivisionError:
        return True


@pytest.mark.parametrize("keep_aspect", [True, False])
def test_frame_grids_equal_the_omni_video_processors(keep_aspect: bool) -> None:
    for height, width, dice in random_sizes(400):
        target = dice.choice([4, 16, 100, 1024])
        processor = NemotronH_Omni_Reasoning_V3VideoProcessor(
            video_target_num_patches=target, video_maintain_aspect_ratio=keep_aspect
        )
        rows, columns = resize.frame_grid(height, width, target=target, merge_size=2, keep_aspect=keep_aspect)
        assert (columns, rows) == processor._compute_target_patches(height, width), (height, width, target)


def test_planned_grids_equal_the_grids_of_real_pixels(
    family: str,
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    image: Callable[..., MediaFacts],
) -> None:
    renderer = renderer_of(family)
    processor, planner = reference_of(family).processor.image_processor, renderer._planner
    budget = media_budget(renderer.settings, num_images=1, num_videos=0)
    sizes = [
        (height, width) for height, width, _ in random_sizes(60) if not max(height, width) > 9 * min(height, width)
    ]
    assert len(sizes) > 30
    for height, width in sizes:
        plan = planner.plan_image(image("image_0", width, height), NO_OPTIONS, budget)
        content = np.zeros((height, width, 3), dtype=np.uint8)
        if family == "nemotron_h_omni":
            grid = processor(content)["image_grid_hw"][0].tolist()
        else:
            low, high = image_limits(planner.image, NO_OPTIONS, budget.image_tokens)  # type: ignore[attr-defined]
            grid = processor(content, size={"shortest_edge": low, "longest_edge": high})["image_grid_thw"][0][
                1:
            ].tolist()
        assert list(plan.grid[1:]) == grid, (height, width)


def test_a_plan_is_kept_by_the_processor_as_its_docstring_says(
    family: str,
    renderer_of: Callable[..., Renderer],
    reference_of: Callable[[str], Any],
    image: Callable[..., MediaFacts],
) -> None:
    """An image resized to its plan's height and width, given in the documented way, has the plan's grid."""
    processor = reference_of(family).processor.image_processor
    renderer = renderer_of(family)
    budget = media_budget(renderer.settings, num_images=1, num_videos=0)
    for height, width, _ in random_sizes(40):
        if max(height, width) > 9 * min(height, width):
            continue
        plan = renderer._planner.plan_image(image("image_0", width, height), NO_OPTIONS, budget)
        resized = np.zeros((plan.height, plan.width, 3), dtype=np.uint8)
        if family == "nemotron_h_omni":
            grid = processor(resized, min_num_patches=1, max_num_patches=plan.num_patches)["image_grid_hw"][0]
        else:
            grid = processor(resized, do_resize=False)["image_grid_thw"][0][1:]
        assert grid.tolist() == list(plan.grid[1:])


def test_an_image_longer_than_the_processor_takes_leaves_by_name() -> None:
    with pytest.raises(RenderProblem, match="aspect_ratio_too_large"):
        resize.image_size(10, 2010, factor=32, min_pixels=1024, max_pixels=65536)
    with pytest.raises(RenderProblem, match="aspect_ratio_too_large"):
        resize.patch_grid(16, 16000, patch_size=16, merge_size=2, min_num_patches=4, max_num_patches=36)
