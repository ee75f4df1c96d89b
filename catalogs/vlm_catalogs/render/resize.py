"""Target sizes of images and frames: the arithmetic of the processors of transformers 5.23, without pixels.

Each function names the one that it equals; tests compare them over random sizes.
"""

import math

from vlm_catalogs.render.settings import RenderProblem

MAX_ASPECT_RATIO = 200
"""Longest side / shortest side that the Qwen and Edge processors take."""


def image_size(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(height, width) as ``models/qwen2_vl/image_processing_qwen2_vl.py:smart_resize``."""
    _check_aspect_ratio(height, width)
    rounded = round(height / factor) * factor, round(width / factor) * factor
    return _fit(rounded, height, width, frames=(1, 1), factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)


def clip_size(
    num_frames: int, height: int, width: int, *, temporal_factor: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """(height, width) of the frames as ``models/qwen3_vl/video_processing_qwen3_vl.py:smart_resize``.

    The limits count pixels of all frames together. Cosmos3-Edge sizes its images with it too, as clips of one frame.
    """
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    _check_aspect_ratio(height, width)
    rounded = round(height / factor) * factor, round(width / factor) * factor
    frames = (round(num_frames / temporal_factor) * temporal_factor, num_frames)
    return _fit(rounded, height, width, frames=frames, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)


def _fit(
    rounded: tuple[int, int],
    height: int,
    width: int,
    *,
    frames: tuple[int, int],
    factor: int,
    min_pixels: int,
    max_pixels: int,
) -> tuple[int, int]:
    whole_frames, num_frames = frames
    pixels = whole_frames * rounded[0] * rounded[1]
    if pixels > max_pixels:
        beta = math.sqrt((num_frames * height * width) / max_pixels)
        return (
            max(factor, math.floor(height / beta / factor) * factor),
            max(factor, math.floor(width / beta / factor) * factor),
        )
    if pixels < min_pixels:
        beta = math.sqrt(min_pixels / (num_frames * height * width))
        return math.ceil(height * beta / factor) * factor, math.ceil(width * beta / factor) * factor
    return rounded


def _check_aspect_ratio(height: int, width: int) -> None:
    ratio = max(height, width) / min(height, width)
    if ratio > MAX_ASPECT_RATIO:
        raise RenderProblem(
            "aspect_ratio_too_large", f"{width} x {height}: the processor takes up to 200, got {ratio:.0f}"
        )


def patch_grid(
    height: int, width: int, *, patch_size: int, merge_size: int, min_num_patches: int, max_num_patches: int
) -> tuple[int, int]:
    """(rows, columns) of patches as ``nemotron_h_omni/image_processing_nemotron_h_omni.py:get_patch_grid_size``."""
    rows, columns = round(height / patch_size + 0.5), round(width / patch_size + 0.5)
    scale = min(math.sqrt(max_num_patches / (rows * columns)), 1.0)
    rows, columns = math.floor(scale * rows), math.floor(scale * columns)
    if rows == 0 or columns == 0:
        raise RenderProblem("aspect_ratio_too_large", f"{width} x {height} leaves no patch of {max_num_patches}")
    if max_num_patches > min_num_patches and rows * columns < min_num_patches:
        scale = math.sqrt(min_num_patches / (rows * columns))
        rows, columns = math.ceil(scale * rows), math.ceil(scale * columns)
    rows = _whole_merges(rows, columns, merge_size, max_num_patches)
    return rows, _whole_merges(columns, rows, merge_size, max_num_patches)


def _whole_merges(side: int, other: int, merge_size: int, max_num_patches: int) -> int:
    """``side`` as a multiple of ``merge_size``: rounded up where the budget allows it, down otherwise."""
    remainder = side % merge_size
    if not remainder:
        return side
    up = side + merge_size - remainder
    return up if up * other <= max_num_patches else max(merge_size, side - remainder)


def frame_grid(height: int, width: int, *, target: int, merge_size: int, keep_aspect: bool) -> tuple[int, int]:
    """(rows, columns) of a frame as ``nemotron_h_omni/video_processing_nemotron_h_omni.py:_compute_target_patches``."""
    if not keep_aspect:
        side = max(merge_size, int(math.sqrt(target)) // merge_size * merge_size)
        return side, side
    aspect = width / max(height, 1)
    rows = max(round(math.sqrt(target / aspect)), 1)
    columns = max(round(math.sqrt(target * aspect)), 1)
    up = [side + -side % merge_size for side in (rows, columns)]
    if up[0] * up[1] <= target or merge_size == 1:
        return up[0], up[1]
    return max(merge_size, rows - rows % merge_size), max(merge_size, columns - columns % merge_size)
