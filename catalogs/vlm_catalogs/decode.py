"""Encoded media files to pixels: images through Pillow, videos through PyAV. What training shows is what facts judge.

Array names carry their shape: H and W pixels, 3 colours, 0 to 255.
"""

import struct
from collections.abc import Iterator, Sequence
from io import BytesIO

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class BrokenMedia(Exception):
    """What is wrong with a media file, before it is known whose it is."""


MEDIA_ERRORS = (
    BrokenMedia,
    Image.DecompressionBombError,
    av.FFmpegError,
    EOFError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    struct.error,
)
"""What Pillow and PyAV raise for bytes that they cannot decode: its readers of PNG and EXIF raise SyntaxError, that of
AVIF RuntimeError. Held by a fuzz test."""


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
    number = -1
    for number, frame in enumerate(video_frames(content)):
        while wanted and wanted[0] == number:
            yield rgb_pixels(frame)
            wanted.pop(0)
        if not wanted:
            return
    raise BrokenMedia(f"frame {wanted[0]} is wanted, but only {number + 1} frames decode")


def video_frames(content: memoryview) -> Iterator[av.VideoFrame]:
    """Every frame of the first video stream, in the order in which they are shown."""
    with av.open(BytesIO(content), mode="r") as container:
        if not container.streams.video:
            raise BrokenMedia("no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


def rgb_pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of a frame."""
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
