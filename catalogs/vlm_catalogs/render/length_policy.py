"""What becomes of a conversation that is longer than a row: its media shrink, or its text is cut (semantics C8).

Both are pure functions of the conversation, its media facts and the length, so that measuring and training agree.
What cannot be made to fit stays whole, and selection leaves it out as too long.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlm_catalogs.render.labels import ASSISTANT, TurnMarks
from vlm_catalogs.render.media_options import MediaOptions
from vlm_catalogs.render.planner import MediaPlanner
from vlm_catalogs.render.rendered import MediaPlan, Rendered, Span
from vlm_catalogs.render.settings import RenderProblem

NUM_SIZES = 64
"""Sizes that are tried between the planned one and the least: steps of 1.6 % of its pixels, or of its frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinking:
    """How much smaller all media of a conversation are shown, in NUM_SIZES-ths; no medium goes under its least."""

    pixels: int = NUM_SIZES
    frames: int = NUM_SIZES


def shrink_media(whole: Rendered, *, max_tokens: int, render: Callable[[Shrinking], Rendered]) -> Rendered:
    """``whole`` with media as large as fit into ``max_tokens``: first of fewer pixels, then also of fewer frames.

    ``whole`` itself where even the least media do not fit. ``render`` shows the same conversation with smaller media.
    """

    def fitting(shrinking: Shrinking) -> Rendered | None:
        try:
            smaller = render(shrinking)
        except RenderProblem:  # too flat to be shown as small as that
            return None
        return smaller if smaller.total_tokens <= max_tokens else None

    if not whole.media:
        return whole
    fitted = _largest(lambda size: fitting(Shrinking(pixels=size)))
    fitted = fitted or _largest(lambda size: fitting(Shrinking(pixels=0, frames=size)))
    return replace(fitted, full_tokens=whole.full_tokens) if fitted else whole


def _largest(fitting: Callable[[int], Rendered | None]) -> Rendered | None:
    """What ``fitting`` gives for a size that fits where the next larger does not; None where not even size 0 fits."""
    found, fits, too_large = fitting(0), 0, NUM_SIZES
    while found and too_large - fits > 1:
        size = (fits + too_large) // 2
        larger = fitting(size)
        if larger is None:
            too_large = size
        else:
            found, fits = larger, size
    return found


def shrunken_options(
    options: MediaOptions, plan: MediaPlan, shrinking: Shrinking, *, planner: MediaPlanner
) -> MediaOptions:
    """What to ask of the family's own rules, so that they give ``plan`` with fewer pixels and frames."""
    pixels = plan.height * plan.width
    frames = len(plan.frame_indices)
    least_frames = min(frames, -(-planner.frames.min_frames // planner.frames.factor) * planner.frames.factor)
    smaller = max(least_frames, frames * shrinking.frames // NUM_SIZES // planner.frames.factor * planner.frames.factor)
    return MediaOptions(
        max_pixels=max(min(pixels, planner.least_pixels(plan.kind)), pixels * shrinking.pixels // NUM_SIZES),
        nframes=smaller or None,
        video_start=options.video_start,
        video_end=options.video_end,
    )


def cut_text(whole: Rendered, *, max_tokens: int, marks: TurnMarks, media_ids: Sequence[int]) -> Rendered:
    """The first ``max_tokens`` of ``whole``, or fewer where they would end in the header of a turn.

    ``whole`` itself where a medium would be cut. ``media_ids`` stand in place of media and right after them. An answer
    that is cut has no label for the end of its turn, because the model must not learn to stop there.
    """
    end = max_tokens
    for span in whole.spans:
        if span.begin < end <= _header_end(span, marks):
            end = span.begin
    if np.isin(whole.input_ids_T[end:], media_ids).any():
        return whole
    return replace(
        whole,
        input_ids_T=whole.input_ids_T[:end],
        labels_T=whole.labels_T[:end],
        spans=tuple(_cut_span(span, end) for span in whole.spans if span.begin < end),
        text_tokens=end - whole.image_tokens - whole.video_tokens,
    )


def _header_end(span: Span, marks: TurnMarks) -> int:
    """Where the text of a turn begins; a turn of an unknown role is all header."""
    if span.role == ASSISTANT:
        return span.supervised_begin
    if span.role in marks.roles:
        return span.begin + 1 + len(marks.roles[span.role]) + 1
    return span.end - 1


def _cut_span(span: Span, end: int) -> Span:
    return replace(
        span,
        end=min(span.end, end),
        supervised_begin=min(span.supervised_begin, end),
        supervised_end=min(span.supervised_end, end),
    )
