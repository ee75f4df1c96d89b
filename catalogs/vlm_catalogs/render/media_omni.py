"""Media of Nemotron-3-Nano-Omni: images sized in patches, a video as labelled groups of frames.

``MediaPlan.height`` and ``width`` are whole multiples of ``patch_size * merge_size`` and ``grid`` is (groups, rows,
columns), groups = frames / ``video_temporal_patch_dim``; an image has one group. To reproduce a plan, resize the image
to exactly (height, width) and call the image processor with ``min_num_patches=1, max_num_patches=rows * columns``: it
then keeps the size. A video's frames are resized to (height, width); the video processor has no switch for that, but
with ``video_target_num_patches = rows * columns`` on frames of that size it gives the same grid.
The processor takes one video a call; here every video of a conversation is expanded as that one would be.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vlm_catalogs.render.frames import FrameRules, SampledFrames, sample_frames
from vlm_catalogs.render.media_options import MediaOptions
from vlm_catalogs.render.planner import (
    LEAST_FRAME_TOKENS,
    LEAST_IMAGE_TOKENS,
    MediaTokens,
    Placeholder,
    clamp,
    round_to,
    with_defaults,
)
from vlm_catalogs.render.rendered import MediaPlan
from vlm_catalogs.render.resize import frame_grid, patch_grid
from vlm_catalogs.render.settings import MediaBudget
from vlm_catalogs.sample import MediaFacts

IMAGE_DEFAULTS = {
    "patch_size": 16,
    "downsample_ratio": 0.5,
    "min_num_patches": 1024,
    "max_num_patches": 13312,
    "max_model_len": 16384,
}
"""Class attributes of ``NemotronH_Omni_Reasoning_V3ImageProcessor``, transformers 5.23."""
VIDEO_DEFAULTS = {
    "patch_size": 16,
    "downsample_ratio": 0.5,
    "video_target_num_patches": 1024,
    "video_maintain_aspect_ratio": True,
    "min_frames": 4,
    "max_frames": 256,
}
"""Class attributes of ``NemotronH_Omni_Reasoning_V3VideoProcessor``, transformers 5.23. It takes every frame it is
given, so the two bounds on frames are ours: 256 frames of 256 tokens in pairs are 32,768 tokens already."""
TEMPORAL_PATCH_DIM = 2
"""Default of ``video_temporal_patch_dim`` in ``NemotronH_Omni_Reasoning_V3Processor``, transformers 5.23."""
RESERVED_TOKENS = 4
"""What the image processor takes off ``max_model_len``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRules:
    """Limits of the image processor, in patches before pixel shuffle."""

    patch_size: int
    merge_size: int
    min_num_patches: int
    max_num_patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TileRules:
    """Size of a video's frames."""

    patch_size: int
    merge_size: int
    target_num_patches: int
    keep_aspect: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OmniPlanner:
    """Plans of nemotron_h_omni."""

    tokens: MediaTokens
    video_pattern: str
    image: PatchRules
    video: TileRules
    frames: FrameRules

    def least_pixels(self, kind: str) -> int:
        """How far the length policy may shrink an image, or a frame of a video."""
        if kind == "video":
            return LEAST_FRAME_TOKENS * (self.video.patch_size * self.video.merge_size) ** 2
        least = min(self.image.min_num_patches, LEAST_IMAGE_TOKENS * self.image.merge_size**2)
        return least * self.image.patch_size**2

    def plan_image(self, facts: MediaFacts, options: MediaOptions, budget: MediaBudget) -> MediaPlan:
        """The size of one image."""
        rules = self.image
        if options.resized_height and options.resized_width:
            rows, columns = _asked_grid(options, rules.patch_size, rules.merge_size)
        else:
            low, high = patch_limits(rules, options, budget.image_tokens)
            rows, columns = patch_grid(
                facts.height,
                facts.width,
                patch_size=rules.patch_size,
                merge_size=rules.merge_size,
                min_num_patches=low,
                max_num_patches=high,
            )
        return _plan(facts, rules, rows, columns, num_groups=1, sampled=None)

    def plan_video(self, facts: MediaFacts, options: MediaOptions, budget: MediaBudget) -> MediaPlan:
        """The frames of one video and their size."""
        rules = self.video
        sampled = sample_frames(facts, options, fps=budget.fps, rules=self.frames)
        num_groups = len(sampled.indices) // self.frames.factor
        if options.resized_height and options.resized_width:
            rows, columns = _asked_grid(options, rules.patch_size, rules.merge_size)
        else:
            target = frame_target(rules, options, budget.video_tokens, num_groups)
            rows, columns = frame_grid(
                facts.height, facts.width, target=target, merge_size=rules.merge_size, keep_aspect=rules.keep_aspect
            )
        return _plan(facts, rules, rows, columns, num_groups=num_groups, sampled=sampled)

    def placeholder(self, plan: MediaPlan, facts: MediaFacts) -> Placeholder:
        """An image is one marked run; a video is a line for each group that says when its frames were taken."""
        run = f"{self.tokens.start}{self.tokens.image}{self.tokens.end}"
        if plan.kind == "image":
            return Placeholder(text=run, run_lengths=(plan.num_tokens,))
        assert facts.fps is not None
        labels = frame_labels(plan.frame_indices, facts.fps, self.frames.factor)
        text = "\n".join(f"{label}: {run}" for label in labels)
        return Placeholder(text=text, run_lengths=(plan.num_tokens // len(labels),) * len(labels))

    def describe(self) -> dict[str, Any]:
        """Every number that the plans depend on."""
        return asdict(self)


def patch_limits(rules: PatchRules, options: MediaOptions, budget_tokens: float) -> tuple[int, int]:
    """(min, max) patches of an image: the processor's limits, lowered to the budget, replaced by the item's options."""
    area = rules.patch_size**2
    budget = int(budget_tokens * rules.merge_size**2)
    low, high = rules.min_num_patches, clamp(budget, rules.min_num_patches, rules.max_num_patches)
    if options.max_pixels is not None:
        high = max(rules.merge_size**2, options.max_pixels // area)
        low = min(low, high)
    if options.min_pixels is not None:
        low = math.ceil(options.min_pixels / area)
        high = max(low, high)
    return low, high


def frame_target(rules: TileRules, options: MediaOptions, budget_tokens: float, num_groups: int) -> int:
    """Patches of one frame, so that all groups together stay within the budget; at least one token."""
    area = rules.patch_size**2
    most = options.max_pixels // area if options.max_pixels else rules.target_num_patches
    tokens = options.total_pixels / (area * rules.merge_size**2) if options.total_pixels else budget_tokens
    target = min(most, int(tokens * rules.merge_size**2 / num_groups))
    least = math.ceil(options.min_pixels / area) if options.min_pixels else 0
    return max(target, least, rules.merge_size**2)


def frame_labels(indices: tuple[int, ...], fps: float, group_size: int) -> list[str]:
    """The label of each group, as ``replace_video_token`` writes it: whole milliseconds of a frame times its index."""
    frame_milliseconds = int(1000.0 / fps)
    parts = [
        f"{'frame' if number % group_size else 'Frame'} {number + 1} sampled at "
        f"{index * frame_milliseconds / 1000.0:.2f} seconds"
        for number, index in enumerate(indices)
    ]
    return [" and ".join(parts[first : first + group_size]) for first in range(0, len(parts), group_size)]


def _asked_grid(options: MediaOptions, patch_size: int, merge_size: int) -> tuple[int, int]:
    assert options.resized_height and options.resized_width
    factor = patch_size * merge_size
    rows, columns = round_to(options.resized_height, factor), round_to(options.resized_width, factor)
    return rows // patch_size, columns // patch_size


def _plan(
    facts: MediaFacts,
    rules: PatchRules | TileRules,
    rows: int,
    columns: int,
    *,
    num_groups: int,
    sampled: SampledFrames | None,
) -> MediaPlan:
    return MediaPlan(
        name=facts.name,
        kind=facts.kind,
        height=rows * rules.patch_size,
        width=columns * rules.patch_size,
        grid=(num_groups, rows, columns),
        frame_indices=sampled.indices if sampled else (),
        timestamps=sampled.timestamps if sampled else (),
        sampled_fps=sampled.fps if sampled else None,
        num_tokens=num_groups * (rows * columns // rules.merge_size**2),
        num_patches=num_groups * rows * columns,
    )


def omni_planner(
    image: Mapping[str, Any], video: Mapping[str, Any], processor: Mapping[str, Any], tokens: MediaTokens
) -> OmniPlanner:
    """The planner of nemotron_h_omni; ``processor`` is the outer part of processor_config.json."""
    still, clip = with_defaults(IMAGE_DEFAULTS, image), with_defaults(VIDEO_DEFAULTS, video)
    factor = processor.get("video_temporal_patch_dim") or TEMPORAL_PATCH_DIM
    return OmniPlanner(
        tokens=tokens,
        video_pattern=re.escape(tokens.video),
        image=_patch_rules(still),
        video=TileRules(
            patch_size=clip["patch_size"],
            merge_size=round(1 / clip["downsample_ratio"]),
            target_num_patches=clip["video_target_num_patches"],
            keep_aspect=clip["video_maintain_aspect_ratio"],
        ),
        frames=FrameRules(min_frames=clip["min_frames"], max_frames=clip["max_frames"], factor=factor),
    )


def _patch_rules(values: Mapping[str, Any]) -> PatchRules:
    """The image processor's limits for one image a call: its context length caps them, its minimum wins over both."""
    merge_size = round(1 / values["downsample_ratio"])
    least = values["min_num_patches"]
    most = max((values["max_model_len"] - RESERVED_TOKENS) * merge_size**2, least)
    if values["max_num_patches"]:
        most = min(most, values["max_num_patches"])
    return PatchRules(
        patch_size=values["patch_size"],
        merge_size=merge_size,
        min_num_patches=least,
        max_num_patches=max(most, least),
    )
