"""What rendering gives: a conversation as token ids, labels, spans and the plan of each medium; no pixels, no torch."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""The label of a token that is not supervised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPlan:
    """How one medium is shown to the model: a pure function of its facts, the item's options and the settings."""

    name: str
    kind: Literal["image", "video"]
    height: int
    """Pixels after resizing, per frame."""
    width: int
    grid: tuple[int, int, int]
    """(temporal, height, width) in vision patches."""
    frame_indices: tuple[int, ...] = ()
    """Source frames that are decoded, in order; videos only."""
    timestamps: tuple[float, ...] = ()
    """Seconds of each of ``frame_indices``; videos only."""
    sampled_fps: float | None = None
    num_tokens: int
    """Placeholder tokens of this medium in the sequence."""
    num_patches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens [begin, end) of one turn, header and end-of-turn included."""

    role: str
    begin: int
    end: int
    supervised_begin: int
    """First supervised token; equals ``supervised_end`` where nothing is."""
    supervised_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """One conversation as the model gets it."""

    input_ids_T: NDArray[np.int64]
    labels_T: NDArray[np.int64]
    """``input_ids_T`` where supervised, -100 elsewhere; not shifted."""
    spans: tuple[Span, ...]
    media: tuple[MediaPlan, ...]
    """In placeholder order; a medium used twice stands twice."""
    text_tokens: int
    image_tokens: int
    video_tokens: int
    full_tokens: int
    """Tokens before the length policy; equal to ``total_tokens`` where it changed nothing."""

    @property
    def total_tokens(self) -> int:
        """Length of the sequence."""
        return len(self.input_ids_T)

    @property
    def supervised_tokens(self) -> int:
        """Number of labels that are not -100, the first token of the sequence apart (it is never predicted)."""
        return int((self.labels_T[1:] != IGNORED).sum())

    @property
    def vision_patches(self) -> int:
        """Vision patches of all media."""
        return sum(plan.num_patches for plan in self.media)
