"""The options of an image or video item in a conversation, in the vocabulary of qwen-vl-utils."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlm_catalogs.render.settings import RenderProblem

COUNTS = (
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "nframes",
    "min_frames",
    "max_frames",
    "resized_height",
    "resized_width",
)
"""Options that must be > 0; a whole number given as a float is taken."""
SECONDS = ("video_start", "video_end")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaOptions:
    """What an item asks for; it wins over the budget and over the processor's own limits. None: not asked for."""

    fps: float | None = None
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    min_pixels: int | None = None
    """Of one image or one frame."""
    max_pixels: int | None = None
    """Of one image or one frame."""
    total_pixels: int | None = None
    """Of a whole video, counted as qwen-vl-utils does: tokens x pixels of a token."""
    video_start: float | None = None
    """Seconds."""
    video_end: float | None = None
    """Seconds."""
    resized_height: int | None = None
    resized_width: int | None = None


NO_OPTIONS = MediaOptions()


def read_media_options(item: Mapping[str, Any]) -> MediaOptions:
    """The options of one item; keys that are no options are left alone.

    Raises RenderProblem("bad_media_option") for values that mean nothing or contradict each other.
    """
    if len(item) <= 2:  # only "type" and the name
        return NO_OPTIONS
    found: dict[str, Any] = {name: _count(name, item[name]) for name in COUNTS if item.get(name) is not None}
    found |= {name: _number(name, item[name]) for name in SECONDS if item.get(name) is not None}
    if item.get("fps") is not None:
        found["fps"] = _number("fps", item["fps"])
    options = MediaOptions(**found)
    _check_together(options)
    return options


def _check_together(options: MediaOptions) -> None:
    if options.fps is not None and options.fps <= 0:
        raise RenderProblem("bad_media_option", f"fps must be > 0, got {options.fps}")
    if options.fps is not None and options.nframes is not None:
        raise RenderProblem("bad_media_option", "fps and nframes exclude each other")
    if (options.resized_height is None) != (options.resized_width is None):
        raise RenderProblem("bad_media_option", "resized_height and resized_width go together")
    if options.min_pixels is not None and options.max_pixels is not None and options.min_pixels > options.max_pixels:
        raise RenderProblem("bad_media_option", f"min_pixels {options.min_pixels} > max_pixels {options.max_pixels}")


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RenderProblem("bad_media_option", f"{name} must be a number, got {value!r:.60}")
    return float(value)


def _count(name: str, value: object) -> int:
    number = _number(name, value)
    if number < 1:
        raise RenderProblem("bad_media_option", f"{name} must be >= 1, got {value!r:.60}")
    return int(number)
