"""What an image's header says, by Pillow, without decoding a pixel and without its limits on size."""

import struct
import warnings
import zlib
from dataclasses import dataclass
from importlib import import_module

from PIL import Image

from vlm_prep.memory_file import MemoryFile

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

ORIENTATION = 0x0112
TURNED_ORIENTATIONS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height (Exif 2.32, tag 274)."""

HEADER_ERRORS = (
    SyntaxError, OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's plugins raise for bytes that are not what they begin like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Facts of one image; ``width`` and ``height`` as stored, before the orientation is applied."""

    width: int
    height: int
    mode: str
    """Pillow's name of the pixel format that it would decode to."""
    orientation: int | None
    """EXIF orientation 1..8, also from XMP as Pillow has it; None when there is none."""
    animated: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after the orientation is applied."""
        turned = self.orientation in TURNED_ORIENTATIONS
        return (self.height, self.width) if turned else (self.width, self.height)


def read_image_header(content: memoryview, image_format: str) -> ImageHeader:
    """The header of an image whose first bytes are those of ``image_format``, a key of PLUGINS. Raises ValueError."""
    return read_with_pillow(content, image_format)


def read_with_pillow(content: memoryview, image_format: str) -> ImageHeader:
    """The header of an image whose first bytes are those of ``image_format``, a key of PLUGINS. Raises ValueError."""
    module, name = PLUGINS[image_format]
    with warnings.catch_warnings(action="ignore"):
        try:
            image = getattr(import_module(f"PIL.{module}"), name)(MemoryFile(content))
            header = ImageHeader(
                width=image.width,
                height=image.height,
                mode=image.mode,
                orientation=_orientation(image),
                animated=bool(getattr(image, "is_animated", False)),
            )
        except HEADER_ERRORS as error:
            raise ValueError(f"no readable {image_format} header: {error}") from error
    return header


def _orientation(image: Image.Image) -> int | None:
    """The orientation that ``ImageOps.exif_transpose`` would apply; damaged EXIF data have none."""
    try:
        value = Image.Image.getexif(image).get(ORIENTATION)  # a PNG's own getexif decodes the image
    except HEADER_ERRORS:
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else None
