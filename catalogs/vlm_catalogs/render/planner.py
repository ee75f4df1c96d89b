"""What a model family knows about media: sizes, frames and the text that stands for them in a prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vlm_catalogs.render.frames import FrameRules
from vlm_catalogs.render.media_options import MediaOptions
from vlm_catalogs.render.rendered import MediaPlan
from vlm_catalogs.render.settings import MediaBudget
from vlm_catalogs.sample import MediaFacts

LEAST_IMAGE_TOKENS = 64
"""An image that is shrunk to fit keeps as many tokens, or the processor's own minimum where that is less."""
LEAST_FRAME_TOKENS = 16
"""So does a frame of a video: with less it shows too little, and fewer frames say more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaTokens:
    """The strings that mark media in a prompt, as the family's processor finds them."""

    image: str
    """Stands in the chat template's text for an image, and is repeated for its features."""
    video: str
    """Stands in the chat template's text for a video."""
    start: str
    end: str
    video_features: str
    """The token that is repeated for the features of a video."""
    others: tuple[str, ...] = ()
    """Further strings that the processor would expand, so that no text may hold them."""

    @property
    def all(self) -> tuple[str, ...]:
        """Every string that only a template or a processor may write."""
        return (self.image, self.video, self.start, self.end, self.video_features, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """What replaces a medium's mark in the prompt."""

    text: str
    """Each run of placeholder tokens is written once."""
    run_lengths: tuple[int, ...]
    """How often each placeholder token of ``text`` stands in the sequence."""


class MediaPlanner(Protocol):
    """The media side of one model family; every method is a pure function of its arguments."""

    @property
    def tokens(self) -> MediaTokens:
        """The strings that mark media."""
        ...

    @property
    def video_pattern(self) -> str:
        """Regular expression of what a video's placeholder replaces in the template's text."""
        ...

    @property
    def frames(self) -> FrameRules:
        """How the processor bounds the number of frames."""
        ...

    def least_pixels(self, kind: str) -> int:
        """How far the length policy may shrink an image, or a frame of a video."""
        ...

    def plan_image(self, facts: MediaFacts, options: MediaOptions, budget: MediaBudget) -> MediaPlan:
        """The size of one image. Raises RenderProblem for a shape that the processor refuses."""
        ...

    def plan_video(self, facts: MediaFacts, options: MediaOptions, budget: MediaBudget) -> MediaPlan:
        """The frames of one video and their size. Raises RenderProblem as ``plan_image``, or when no frame is left."""
        ...

    def placeholder(self, plan: MediaPlan, facts: MediaFacts) -> Placeholder:
        """The text of one planned medium."""
        ...

    def describe(self) -> dict[str, Any]:
        """Every number that the plans depend on, JSON-able, for the encoding fingerprint."""
        ...


def round_to(value: int, factor: int) -> int:
    """``value`` as the nearest multiple of ``factor``, at least one."""
    return max(factor, round(value / factor) * factor)


def clamp(value: int, low: int, high: int) -> int:
    """``value`` within [low, high]."""
    return max(low, min(value, high))


def with_defaults(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` overridden by what the checkpoint's file says; null counts as not said."""
    return {name: default if config.get(name) is None else config[name] for name, default in defaults.items()}
