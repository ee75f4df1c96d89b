"""Encoded media files to frames of the planned size: images through Pillow, videos through PyAV.

Tensor names carry their shape: T frames, 3 colours, H and W pixels, 0 to 255.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vlm_catalogs.errors import DataError
from vlm_catalogs.render.rendered import MediaPlan
from vlm_catalogs.sample import Sample

Resize = Callable[[Tensor], Tensor]
"""One uint8 frame (1, 3, H, W) to the planned size, as the family's own processor resizes."""

TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


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


class BrokenMedia(Exception):
    """What is wrong with a media file, before it is known whose it is."""


MEDIA_ERRORS = (
    BrokenMedia,
    Image.DecompressionBombError,
    av.FFmpegError,
    EOFError,
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
)
"""What Pillow and PyAV raise for bytes that they cannot decode (Pillow's readers of PNG and EXIF raise SyntaxError)."""


def frame_1_3HW(pixels_HW3: NDArray[np.uint8]) -> Tensor:
    """One frame as the tensor that the processors resize."""
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1).contiguous().unsqueeze(0)


def decode_image(content: memoryview) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of an image file: EXIF orientation applied, transparency over white, first frame only."""
    with Image.open(BytesIO(content)) as image:
        image.seek(0)
        image.load()  # damaged pixels are an error; damaged EXIF is none
        return np.array(to_rgb(_upright(image)))


def _upright(image: Image.Image) -> Image.Image:
    """``image`` as its EXIF orientation shows it; as it is stored where that cannot be read, as conversion took it."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, struct.error):
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` in 8-bit RGB, whatever its mode."""
    if image.mode in SIXTEEN_BIT_MODES:
        # Pillow's own conversion clips at 255 instead of scaling, which turns 16-bit scans white.
        return Image.fromarray((np.array(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def decode_frames(content: memoryview, frame_indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """The pixels (H, W, 3) of the frames named, in the order named (ascending, repeats allowed), decoding no further.

    Raises BrokenMedia when the file holds fewer frames than its plan counts on.
    """
    wanted = list(frame_indices)
    if wanted != sorted(wanted):
        raise AssertionError(f"frame indices must ascend, got {wanted}")
    with av.open(BytesIO(content), mode="r") as container:
        if not container.streams.video:
            raise BrokenMedia("no video stream")
        number = -1
        for number, frame in enumerate(_frames(container)):
            while wanted and wanted[0] == number:
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                wanted.pop(0)
            if not wanted:
                return
    raise BrokenMedia(f"frame {wanted[0]} is wanted, but only {number + 1} frames decode")


def _frames(container: "av.container.InputContainer") -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return container.decode(stream)
