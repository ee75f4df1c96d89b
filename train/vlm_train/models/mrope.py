"""Multimodal rotary positions (M-RoPE) of Qwen3-VL and Cosmos3 Edge: temporal, height and width of each token.

Text advances all three by one a token. Each image, and each frame group of a video, stands at the next position and
spreads its rows and columns from there; text goes on after the larger of the two. As ``get_rope_index`` of
transformers 5.23 (modeling_qwen3_vl.py), but without a model, so that it runs where batches are made.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Grid = tuple[int, int, int]


def mrope_positions_3T(placeholders_T: Tensor, grids: Iterable[Grid], *, merge_size: int) -> Tensor:
    """Positions (3, T) of one sequence.

    Args:
        placeholders_T: True where a token stands for a visual feature.
        grids: Patch grid (temporal, height, width) of each medium, in placeholder order.
        merge_size: Patches per feature along each side.
    """
    begins = placeholders_T.nonzero().flatten().tolist()
    pieces: list[Tensor] = []
    cursor = position = num_features = 0
    for height, width in _frames(grids, merge_size):
        begin = begins[num_features]
        pieces += [_text(begin - cursor, position), _frame(height, width, position + begin - cursor)]
        position += begin - cursor + max(height, width)
        num_features += height * width
        cursor = begin + height * width
    pieces.append(_text(len(placeholders_T) - cursor, position))
    return torch.cat(pieces, dim=1)


def _frames(grids: Iterable[Grid], merge_size: int) -> Iterator[tuple[int, int]]:
    """Height and width in features of each frame: timestamps stand between the frame groups of a video."""
    for frames, height, width in grids:
        for _ in range(frames):
            yield height // merge_size, width // merge_size


def _text(length: int, start: int) -> Tensor:
    return torch.arange(start, start + length).expand(3, -1)


def _frame(height: int, width: int, start: int) -> Tensor:
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    return torch.stack([torch.zeros_like(rows), rows, columns]) + start
