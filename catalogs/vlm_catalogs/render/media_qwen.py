"""Media of Qwen3-VL: sizes by ``smart_resize``, a video as timestamped pairs of frames.

``MediaPlan.height`` and ``width`` are whole multiples of ``patch_size * merge_size``. To reproduce a plan, resize the
image (or each frame of ``frame_indices``) to exactly (height, width) and call the family's processor with
``do_resize=False``; videos also with ``do_sample_frames=False`` and ``VideoMetadata(fps=facts.fps,
total_num_frames=facts.frames, frames_indices=list(plan.frame_indices))``. The processor's grid is then ``plan.grid``.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vlm_catalogs.render.frames import FrameRules, sample_frames
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
from vlm_catalogs.render.resize import clip_size, image_size
from vlm_catalogs.render.settings import MediaBudget
from vlm_catalogs.sample import MediaFacts

IMAGE_DEFAULTS = {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
"""Class attributes of ``Qwen2VLImageProcessor``, transformers 5.23."""
VIDEO_DEFAULTS = {
    "size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 32 * 32 * 768},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_frames": 4,
    "max_frames": 768,
    "cap_pixels_per_frame": True,
    "max_video_tokens": 768,
}
"""Class attributes of ``Qwen3VLVideoProcessor``, transformers 5.23; but where the checkpoint does not say, the frame
cap is on, as in qwen-vl-utils: without it a clip of four frames costs as much as a long video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRules:
    """One processor's geometry and limits."""

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    min_pixels: int
    """Of an image, or of all frames of a clip together."""
    max_pixels: int
    """Of an image, or of all frames of a clip together."""
    max_frame_tokens: int | None = None
    """Cap of one frame of a video; None: no cap."""

    @property
    def factor(self) -> int:
        """Side of one token in pixels."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPlanner:
    """Plans of the families whose processors give ``grid_thw`` (Qwen3-VL, Cosmos3-Edge)."""

    tokens: MediaTokens
    video_pattern: str
    image: PixelRules
    video: PixelRules
    frames: FrameRules
    images_are_clips: bool = False
    """Cosmos3-Edge sizes an image as a clip of one frame; the two differ for images smaller than a token."""

    def least_pixels(self, kind: str) -> int:
        """How far the length policy may shrink an image, or a frame of a video."""
        if kind == "video":
            return LEAST_FRAME_TOKENS * self.video.factor**2
        return min(self.image.min_pixels, LEAST_IMAGE_TOKENS * self.image.factor**2)

    def plan_image(self, facts: MediaFacts, options: MediaOptions, budget: MediaBudget) -> MediaPlan:
        """The size of one image."""
        low, high = image_limits(self.image, options, budget.image_tokens)
        factor = self.image.factor
        if options.resized_height and options.resized_width:
            height, width = round_to(options.resized_height, factor), round_to(options.resized_width, factor)
        elif self.images_are_clips:
            frames = self.image.temporal_patch_size
            height, width = clip_size(
                frames,
                facts.height,
                facts.width,
                temporal_factor=frames,
                factor=factor,
                min_pixels=low,
                max_pixels=high,
            )
        else:
            height, width = image_size(facts.height, facts.width, factor=factor, min_pixels=low, max_pixels=high)
        return _plan(facts, self.image, height, width)

    def plan_video(self, facts: MediaFacts, options: MediaOptions, budget: MediaBudget) -> MediaPlan:
        """The frames of one video and their size."""
        sampled = sample_frames(facts, options, fps=budget.fps, rules=self.frames)
        num_frames, rules = len(sampled.indices), self.video
        if options.resized_height and options.resized_width:
            height, width = (
                round_to(options.resized_height, rules.factor),
                round_to(options.resized_width, rules.factor),
            )
        else:
            low, high = clip_limits(rules, options, budget.video_tokens, num_frames)
            height, width = clip_size(
                num_frames,
                facts.height,
                facts.width,
                temporal_factor=rules.temporal_patch_size,
                factor=rules.factor,
                min_pixels=low,
                max_pixels=high,
            )
        return _plan(facts, rules, height, width, sampled.indices, sampled.timestamps, sampled.fps)

    def placeholder(self, plan: MediaPlan, facts: MediaFacts) -> Placeholder:
        """An image is a run of its token; a video is ``<t seconds>`` and a marked run for each temporal patch."""
        if plan.kind == "image":
            return Placeholder(text=self.tokens.image, run_lengths=(plan.num_tokens,))
        run = f"{self.tokens.start}{self.tokens.video_features}{self.tokens.end}"
        times = patch_times(plan.timestamps, self.video.temporal_patch_size)
        text = "".join(f"<{time:.1f} seconds>{run}" for time in times)
        return Placeholder(text=text, run_lengths=(plan.num_tokens // len(times),) * len(times))

    def describe(self) -> dict[str, Any]:
        """Every number that the plans depend on."""
        return asdict(self)


def image_limits(rules: PixelRules, options: MediaOptions, budget_tokens: float) -> tuple[int, int]:
    """(min, max) pixels of an image: the processor's limits, lowered to the budget, replaced by the item's options."""
    low, high = rules.min_pixels, clamp(int(budget_tokens * rules.factor**2), rules.min_pixels, rules.max_pixels)
    if options.max_pixels is not None:
        low, high = min(low, options.max_pixels), options.max_pixels
    if options.min_pixels is not None:
        low, high = options.min_pixels, max(high, options.min_pixels)
    return low, high


def clip_limits(rules: PixelRules, options: MediaOptions, budget_tokens: float, num_frames: int) -> tuple[int, int]:
    """(min, max) pixels of all frames together; a token covers ``temporal_patch_size`` frames."""
    high = clamp(int(budget_tokens * rules.factor**2 * rules.temporal_patch_size), rules.min_pixels, rules.max_pixels)
    if options.total_pixels is not None:
        high = options.total_pixels * rules.temporal_patch_size
    low = min(rules.min_pixels, high)
    if options.max_pixels is not None:
        high = min(high, options.max_pixels * num_frames)
        low = min(low, high)
    elif rules.max_frame_tokens is not None:
        high = max(low, min(high, rules.max_frame_tokens * rules.factor**2 * num_frames))
    if options.min_pixels is not None:
        low = options.min_pixels * num_frames
        high = max(low, high)
    return low, high


def patch_times(timestamps: tuple[float, ...], frames_per_patch: int) -> tuple[float, ...]:
    """Seconds of each temporal patch: midway between its first and last frame, as ``_calculate_timestamps``."""
    firsts, lasts = timestamps[::frames_per_patch], timestamps[frames_per_patch - 1 :: frames_per_patch]
    return tuple((first + last) / 2 for first, last in zip(firsts, lasts, strict=True))


def _plan(
    facts: MediaFacts,
    rules: PixelRules,
    height: int,
    width: int,
    indices: tuple[int, ...] = (),
    timestamps: tuple[float, ...] = (),
    fps: float | None = None,
) -> MediaPlan:
    temporal = max(1, len(indices) // rules.temporal_patch_size)
    grid = (temporal, height // rules.patch_size, width // rules.patch_size)
    num_patches = grid[0] * grid[1] * grid[2]
    return MediaPlan(
        name=facts.name,
        kind=facts.kind,
        height=height,
        width=width,
        grid=grid,
        frame_indices=indices,
        timestamps=timestamps,
        sampled_fps=fps,
        num_tokens=num_patches // rules.merge_size**2,
        num_patches=num_patches,
    )


def pixel_rules(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> PixelRules:
    """The rules of one processor file; ``min_pixels`` and ``max_pixels`` beside ``size`` are the older spelling."""
    values = with_defaults(defaults, config)
    size = dict(values["size"])
    low = config.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
    high = config.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
    capped = bool(values.get("cap_pixels_per_frame"))
    return PixelRules(
        patch_size=values["patch_size"],
        merge_size=values["merge_size"],
        temporal_patch_size=values["temporal_patch_size"],
        min_pixels=int(low or defaults["size"]["shortest_edge"]),
        max_pixels=int(high or defaults["size"]["longest_edge"]),
        max_frame_tokens=values["max_video_tokens"] if capped else None,
    )


def frame_rules(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> FrameRules:
    """How the processor's file bounds the number of frames."""
    values = with_defaults(defaults, config)
    return FrameRules(
        min_frames=values["min_frames"], max_frames=values["max_frames"], factor=values["temporal_patch_size"]
    )


def qwen_planner(image: Mapping[str, Any], video: Mapping[str, Any], tokens: MediaTokens) -> GridPlanner:
    """The planner of qwen3_vl and qwen3_vl_moe.

    In transformers 5.23 the processor replaces the video token alone and leaves the template's own ``<|vision_start|>``
    and ``<|vision_end|>`` around the whole video; the ids here equal it.
    """
    return GridPlanner(
        tokens=tokens,
        video_pattern=re.escape(tokens.video),
        image=pixel_rules(image, IMAGE_DEFAULTS),
        video=pixel_rules(video, VIDEO_DEFAULTS),
        frames=frame_rules(video, VIDEO_DEFAULTS),
    )
