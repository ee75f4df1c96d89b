"""What an image's header says: by hand where it is ordinary, else by Pillow, without decoding a pixel."""

import struct
import warnings
import zlib
from importlib import import_module

from PIL import Image

from vlm_prep.memory_file import MemoryFile
from vlm_prep.quick_header import ORIENTATION_TAG, TURNED_ORIENTATIONS, ImageHeader, read_quickly

PLUGINS = {
    "jpeg": ("JpegImagePlugin", "JpegImageFile"),
    "png": ("PngImagePlugin", "PngImageFile"),
    "webp": ("WebPImagePlugin", "WebPImageFile"),
    "gif": ("GifImagePlugin", "GifImageFile"),
    "bmp": ("BmpImagePlugin", "BmpImageFile"),
    "tiff": ("TiffImagePlugin", "TiffImageFile"),
    "ppm": ("PpmImagePlugin", "PpmImageFile"),
    "avif": ("AvifImagePlugin", "AvifImageFile"),
    "jpeg2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
}
"""Format -> Pillow's module and class. Using the class, not ``Image.open``, loads one plugin, refuses no size that
an audit wants to see, and takes a JPEG with previews (MPO) for the JPEG that it is."""

HEADER_ERRORS = (
    SyntaxError, OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's plugins raise for bytes that are not what they begin like."""


def read_image_header(content: memoryview, image_format: str) -> ImageHeader:
    """The header of an image whose first bytes are those of ``image_format``, a key of PLUGINS. Raises ValueError."""
    return read_quickly(content, image_format) or read_with_pillow(content, image_format)


def read_with_pillow(content: memoryview, image_format: str) -> ImageHeader:
    """The header of an image whose first bytes are those of ``image_format``, a key of PLUGINS. Raises ValueError."""
    module, name = PLUGINS[image_format]
    with warnings.catch_warnings(action="ignore"):
        try:
            image = getattr(import_module(f"PIL.{module}"), name)(MemoryFile(content))
            is_animated = bool(getattr(image, "is_animated", False))
        except HEADER_ERRORS as error:
            raise ValueError(f"no readable {image_format} header: {error}") from error
        orientation = _orientation(image)
    width, height = image.size
    if image_format == "tiff" and orientation in TURNED_ORIENTATIONS:  # Pillow turns TIFFs itself, so undo it
        width, height = height, width
    return ImageHeader(width=width, height=height, mode=image.mode, orientation=orientation, animated=is_animated)


def _orientation(image: Image.Image) -> int | None:
    """The orientation that ``ImageOps.exif_transpose`` would apply; damaged EXIF data have none."""
    try:
        value = Image.Image.getexif(image).get(ORIENTATION_TAG)  # a PNG's own getexif decodes the image
    except HEADER_ERRORS:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else None
