"""Encoded media files to frames of the planned size, as tensors; ``vlm_catalogs.decode`` decodes them.

Tensor names carry their shape: T frames, 3 colours, H and W pixels, 0 to 255.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlm_catalogs.decode import MEDIA_ERRORS, decode_frames, decode_image
from vlm_catalogs.errors import DataError
from vlm_catalogs.render.rendered import MediaPlan
from vlm_catalogs.sample import Sample

Resize = Callable[[Tensor], Tensor]
"""One uint8 frame (1, 3, H, W) to the planned size, as the family's own processor resizes."""


class UndecodableMedia(DataError):
    """A medium whose bytes match its hash but do not decode; the caller decides whether training goes on."""

    def __init__(self, *, dataset: str, sample_id: str, name: str, detail: str) -> None:
        super().__init__(f"{dataset}/{sample_id}: {name} does not decode: {detail}")
        self.dataset = dataset
        self.sample_id = sample_id
        self.name = name
        self.detail = detail


def load_frames(sample: Sample, plan: MediaPlan, resize: Resize) -> Tensor:
    """The frames (T, 3, H, W) of one medium at the planned size; an image is one frame.

    Raises UndecodableMedia with the sample and the medium named.
    """
    content = sample.medium(plan.name)
    try:
        if plan.kind == "image":
            return resize(frame_1_3HW(decode_image(content)))
        # Each frame shrinks as soon as it is decoded, so that a long video never stands in memory at full size.
        return torch.cat([resize(frame_1_3HW(frame)) for frame in decode_frames(content, plan.frame_indices)])
    except MEDIA_ERRORS as error:
        detail = f"{type(error).__name__}: {error} ({len(content):,} bytes)"
        raise UndecodableMedia(
            dataset=sample.dataset, sample_id=sample.sample_id, name=plan.name, detail=detail
        ) from error


def blank_frames(plan: MediaPlan) -> Tensor:
    """Black frames (T, 3, H, W) in the planned shape, for a sample that stays in its place without its media."""
    return torch.zeros(max(1, len(plan.frame_indices)), 3, plan.height, plan.width, dtype=torch.uint8)


def frame_1_3HW(pixels_HW3: NDArray[np.uint8]) -> Tensor:
    """One frame as the tensor that the processors resize."""
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1).contiguous().unsqueeze(0)
