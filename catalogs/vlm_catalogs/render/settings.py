"""The settings of rendering, the pixel budgets that follow from them, and the door for what cannot be rendered."""

from dataclasses import dataclass
from typing import Literal

Profile = Literal["i4", "normal"]
LengthPolicy = Literal["drop", "shrink_media", "cut_text"]

LENGTH_SHARE = 0.9
"""Share of ``model_max_length`` that media may fill (qwen-vl-utils and the original's normal loader use the same)."""
I4_IMAGE_TOKENS = 8192
"""At most this many image tokens in one sample of an i4 dataset, as in the original."""
I4_VIDEO_TOKENS = 8192
"""At most this many tokens for each video of an i4 dataset, as in the original."""
NORMAL_FPS = 1.0
I4_FPS = 4.0


class RenderProblem(Exception):
    """Why one conversation cannot be rendered: a data decision, not an error of the user's or a bug.

    ``reason`` is a word that audits count; ``detail`` says what was found, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """What the TOML says about rendering; every field is part of the encoding fingerprint."""

    profile: Profile
    """Pixel budgets and frame rate: ``i4`` for i4 datasets, ``normal`` for all others."""
    model_max_length: int
    """Tokens of a row; the pixel budgets are shares of it."""
    length_policy: LengthPolicy = "drop"
    """What becomes of a conversation longer than that; with ``drop`` it stays whole, and selection leaves it out."""
    system_prompt: str | None = None
    """Put first in conversations that have no system message."""
    trust_remote_code: bool = False
    """Accepted for the model's sake; rendering itself never runs code of a checkpoint."""
    revision: str | None = None
    """Revision of a hub model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaBudget:
    """The largest size of each medium of one sample, before the processor's own limits and the item's options."""

    image_tokens: float
    """Tokens of each image; a fraction, so that pixels are rounded only once."""
    video_tokens: float
    """Tokens of each video."""
    fps: float
    """Frames per second that are taken from a video."""


def media_budget(settings: RenderSettings, *, num_images: int, num_videos: int) -> MediaBudget:
    """The budget of each medium of a sample with so many images and videos.

    normal: ``model_max_length * 0.9`` tokens shared by all media of the sample. i4: 8192 tokens shared by its images
    and 8192 for each video, but never more than the normal share, because a sample that cannot fit is of no use.
    """
    share = settings.model_max_length * LENGTH_SHARE / max(1, num_images + num_videos)
    if settings.profile == "normal":
        return MediaBudget(image_tokens=share, video_tokens=share, fps=NORMAL_FPS)
    image_tokens = min(share, I4_IMAGE_TOKENS / max(1, num_images))
    return MediaBudget(image_tokens=image_tokens, video_tokens=min(share, I4_VIDEO_TOKENS), fps=I4_FPS)
