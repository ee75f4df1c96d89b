"""Which frames of a video are decoded: a pure function of its header facts, the item's options and the settings."""

import math
from dataclasses import dataclass

import numpy as np

from vlm_catalogs.render.media_options import MediaOptions
from vlm_catalogs.render.settings import RenderProblem
from vlm_catalogs.sample import MediaFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRules:
    """The processor's side of sampling."""

    min_frames: int
    max_frames: int
    factor: int
    """Frames of one temporal patch; the number of sampled frames is a multiple of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFrames:
    """The frames of one video in order; frames may repeat where the video has fewer than a temporal patch needs."""

    indices: tuple[int, ...]
    timestamps: tuple[float, ...]
    """Seconds from the start of the file: index / mean fps."""
    fps: float
    """Sampled frames per second."""


def sample_frames(facts: MediaFacts, options: MediaOptions, *, fps: float, rules: FrameRules) -> SampledFrames:
    """Frames spread evenly over the asked range, as qwen-vl-utils 0.0.14 does (``smart_nframes``, ``linspace``).

    ``fps`` is the profile's rate; the item's ``fps`` or ``nframes`` win. Raises RenderProblem where no frame is left.
    """
    if not facts.frames or not facts.fps:
        raise RenderProblem("video_without_frames", f"{facts.name}: {facts.frames} frames at {facts.fps} fps")
    first, last = frame_range(facts, options)
    total = last - first + 1
    count = count_frames(total, facts.fps, options, fps=fps, rules=rules)
    indices = tuple(np.linspace(first, last, count).round().astype(int).tolist())
    timestamps = tuple(index / facts.fps for index in indices)
    return SampledFrames(indices=indices, timestamps=timestamps, fps=count / total * facts.fps)


def frame_range(facts: MediaFacts, options: MediaOptions) -> tuple[int, int]:
    """First and last frame between ``video_start`` and ``video_end``, both included."""
    assert facts.frames and facts.fps
    seconds = facts.frames / facts.fps
    start = min(max(0.0, options.video_start or 0.0), seconds)
    end = seconds if options.video_end is None else min(max(0.0, options.video_end), seconds)
    first = math.ceil(start * facts.fps)
    last = min(math.floor(end * facts.fps), facts.frames - 1)
    if first > last or (options.video_end is not None and end <= start):
        found = f"{facts.name}: no frame from {start:g} to {end:g} s of {seconds:g} s"
        raise RenderProblem("bad_media_option", found)
    return first, last


def count_frames(total: int, source_fps: float, options: MediaOptions, *, fps: float, rules: FrameRules) -> int:
    """How many of ``total`` frames are taken: a multiple of the factor, at least one temporal patch."""
    if options.nframes is not None:
        wanted = round(options.nframes / rules.factor) * rules.factor
    else:
        least = math.ceil((options.min_frames or rules.min_frames) / rules.factor) * rules.factor
        most = (options.max_frames or rules.max_frames) // rules.factor * rules.factor
        wanted = min(max(int(total / source_fps * (options.fps or fps)), least), most)
    return max(min(wanted, total) // rules.factor * rules.factor, rules.factor)
