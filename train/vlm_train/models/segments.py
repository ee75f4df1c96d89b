"""Where the samples of packed rows begin and end, as attention and Mamba layers need it.

Tensor names carry their shape: B rows, T tokens, S segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """The segments of every row. The padding at the end of a row is a segment of its own."""

    lengths: tuple[tuple[int, ...], ...]
    """Row by row; each row adds up to T. Plain numbers: layers split by them without asking the device."""
    boundaries_S: Tensor
    """int32, from 0: where each segment begins, all rows one after the other, and the end of the last."""
    numbers_BT: Tensor
    """int32: the segment of each token, counted from 0 in its row."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest segment."""
        return max(chain.from_iterable(self.lengths))

    def to(self, device: torch.device | str) -> "Segments":
        """The same segments with their tensors on ``device``."""
        return replace(
            self,
            boundaries_S=self.boundaries_S.to(device, non_blocking=True),
            numbers_BT=self.numbers_BT.to(device, non_blocking=True),
        )


def segments_of(rows: Sequence[Sequence[int]]) -> Segments:
    """The segments of rows that hold samples of these lengths and are padded on the right to the longest."""
    longest = max(map(sum, rows))
    padded = tuple((*row, longest - sum(row)) if sum(row) < longest else tuple(row) for row in rows)
    numbers = [torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in padded]
    return Segments(
        lengths=padded,
        boundaries_S=torch.tensor([0, *accumulate(chain.from_iterable(padded))], dtype=torch.int32),
        numbers_BT=torch.stack(numbers).to(torch.int32),
    )
