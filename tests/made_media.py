"""Small encoded images and videos, made on the spot."""

from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
from PIL import Image


def encoded(image: Image.Image, file_format: str, **options: Any) -> memoryview:
    file = BytesIO()
    image.save(file, file_format, **options)
    return memoryview(file.getvalue())


def noise(width: int = 48, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def video(num_frames: int, *, codec: str = "mpeg4", size: tuple[int, int] = (48, 32)) -> memoryview:
    """Frame i is grey of level 10 * i, up to white."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(4))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((size[1], size[0], 3), min(10 * number, 255), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return memoryview(file.getvalue())
