"""What the pixels of a picture say: a perceptual hash, how light, how contrasted, how sharp, is it grey.

All of it is of the picture made small, so a picture of any size costs about what decoding it costs.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE = 512
"""Pixels of the picture that light, contrast, sharpness and colours are measured on."""
GRAY_LEVELS = 8
"""A picture whose colours differ by no more than this anywhere is grey: JPEG moves a grey one by a few levels."""
HASH_SIDE = 32
HASH_BITS_SIDE = 8
COSINE_UNIT = 1 << 14
LEAST_AMPLITUDE = 0.25
"""Grey levels. A weaker cosine is rounding and noise: it counts as 0, so that a blank picture has (almost) no bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts:
    """What is measured of one decoded picture."""

    phash: int
    """64 bits, see ``perceptual_hash``."""
    luminance: float
    """Mean of grey, 0 to 255."""
    contrast: float
    """Standard deviation of grey."""
    sharpness: float
    """Variance of the Laplacian of grey: low where the picture is blurred."""
    is_gray: bool


def picture_facts(pixels_HW3: NDArray[np.uint8]) -> PictureFacts:
    """The facts of a picture in 8-bit RGB."""
    picture = Image.fromarray(pixels_HW3)
    hashed = perceptual_hash(picture)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    colours = np.asarray(picture).astype(np.int16)
    gray = np.asarray(picture.convert("L")).astype(np.float64)
    return PictureFacts(
        phash=hashed,
        luminance=float(gray.mean()),
        contrast=float(gray.std()),
        sharpness=_laplacian_variance(gray),
        is_gray=int((colours.max(axis=2) - colours.min(axis=2)).max()) <= GRAY_LEVELS,
    )


def _laplacian_variance(gray: NDArray[np.float64]) -> float:
    """Of the inner pixels; 0 for a picture that has none."""
    if min(gray.shape) < 3:
        return 0.0
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * gray[1:-1, 1:-1]).var())


def perceptual_hash(picture: Image.Image) -> int:
    """64 bits that stay nearly the same when a picture is encoded again or made smaller or larger.

    The hash by DCT (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1)
    as the library imagehash 4.3 computes it: 32 x 32 grey, its DCT-II, of that the 8 x 8 slowest cosines; a bit is 1
    where one is over the median of the 64. In whole numbers, so that every machine finds the same bits. The mean of the
    picture counts as 0, and so does what is under LEAST_AMPLITUDE: a blank picture has no bits, whatever its noise.
    """
    small = picture.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS)
    cosines = _cosines()
    amplitudes = cosines @ np.asarray(small).astype(np.int64) @ cosines.T
    amplitudes[0, 0] = 0
    values = np.where(np.abs(amplitudes) < LEAST_AMPLITUDE * (COSINE_UNIT * HASH_SIDE / 2) ** 2, 0, amplitudes).ravel()
    in_order = np.sort(values)
    is_over = 2 * values > in_order[31] + in_order[32]
    return int.from_bytes(np.packbits(is_over).tobytes(), "big")


@cache
def _cosines() -> NDArray[np.int64]:
    """The first rows of the DCT-II of 32 values, in whole numbers."""
    frequencies, places = np.arange(HASH_BITS_SIDE)[:, None], np.arange(HASH_SIDE)[None, :]
    cosines: NDArray[np.float64] = np.cos(np.pi * (2 * places + 1) * frequencies / (2 * HASH_SIDE))
    return np.rint(COSINE_UNIT * cosines).astype(np.int64)
