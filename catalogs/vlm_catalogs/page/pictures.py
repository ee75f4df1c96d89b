"""Small pictures of media for a page: re-encoded, upright, of bounded size; never the files themselves."""

import base64
from io import BytesIO

from PIL import Image, ImageOps

from vlm_catalogs.decode import MEDIA_ERRORS, BrokenMedia, rgb_pixels, to_rgb, video_frames
from vlm_catalogs.sample import MediaFacts

SIDE = 224
"""Pixels of the longer side."""
QUALITY = 72
MOST_PIXELS = 64_000_000
"""A larger medium is not decoded for a small picture."""


def picture_url(facts: MediaFacts, content: memoryview) -> str | None:
    """A ``data:`` URL of the medium, of a video's first frame; None where it is too large or does not decode."""
    if facts.width * facts.height > MOST_PIXELS:
        return None
    try:
        small = _small_frame(content) if facts.kind == "video" else _small_image(content)
    except MEDIA_ERRORS:
        return None
    file = BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _small_image(content: memoryview) -> Image.Image:
    with Image.open(BytesIO(content)) as image:
        image.draft(None, (2 * SIDE, 2 * SIDE))  # a JPEG decodes at an eighth of its size as fast as it is small
        image.thumbnail((2 * SIDE, 2 * SIDE))
        return _fit(to_rgb(ImageOps.exif_transpose(image)))


def _small_frame(content: memoryview) -> Image.Image:
    frame = next(video_frames(content), None)
    if frame is None:
        raise BrokenMedia("no frame decodes")
    return _fit(Image.fromarray(rgb_pixels(frame)))


def _fit(image: Image.Image) -> Image.Image:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image
