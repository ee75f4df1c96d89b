"""Windowed best-fit packing: samples to rows of at most ``row_tokens``, the same rows every time. Pure, no torch.

The samples of a window are placed longest first, each into the open row that it fills best, else into a new row. A row
leaves when little could still be added to it, or after MAX_WINDOWS_OPEN windows; so the order of the epoch is kept but
for a few windows, and an epoch need not be known whole before its first rows can train.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_catalogs.errors import DataError

MAX_WINDOWS_OPEN = 2
"""Windows in which a row may be added to: its own and the next."""
FULL_ENOUGH = 0.005
"""A row with no more than this share of its tokens left leaves with its window."""

CHUNK_BITS = 9
"""Rests are looked up in two steps, 512 at a time, so that no search is over more than a few machine words."""
CHUNK_MASK = (1 << CHUNK_BITS) - 1

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PackedSamples:
    """Samples of rows that have left: parallel arrays, in the order in which they were drawn."""

    draws: Indices
    rows: Indices
    """Number of each sample's row; rows are counted over the epoch as they are opened."""


class Packer:
    """Packs the windows of one epoch, one after the other."""

    def __init__(self, row_tokens: int) -> None:
        self._row_tokens = row_tokens
        self._rests = _OpenRests(row_tokens)
        self._num_rows = 0
        self._num_windows = 0
        self._draws = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int64)
        self._rest_of: dict[int, int] = {}
        self._window_of: dict[int, int] = {}

    def add(self, draws: Indices, tokens: NDArray[np.int32], *, is_last: bool) -> PackedSamples:
        """Place one window of samples; the samples of all rows that leave after it (with the last one, every row).

        Raises DataError for a sample longer than a row.
        """
        if len(tokens) and tokens.max() > self._row_tokens:
            raise DataError(f"a sample of {tokens.max()} tokens fits no row of {self._row_tokens}")
        order = np.argsort(-tokens, kind="stable")
        rows = np.empty(len(draws), np.int64)
        rows[order] = self._place(tokens[order].tolist())
        self._draws = np.concatenate([self._draws, draws])
        self._rows = np.concatenate([self._rows, rows])
        self._num_windows += 1
        return self._leave(is_last=is_last, shortest=int(tokens.min()) if len(tokens) else 0)

    def _place(self, lengths: list[int]) -> list[int]:
        """The row of each sample, longest first."""
        placed = []
        for length in lengths:
            rest = self._rests.smallest_from(length)
            if rest is None:
                row, rest = self._num_rows, self._row_tokens
                self._num_rows += 1
                self._window_of[row] = self._num_windows
            else:
                row = self._rests.pop(rest)
            rest -= length
            self._rest_of[row] = rest
            if rest:
                self._rests.push(rest, row)
            placed.append(row)
        return placed

    def _leave(self, *, is_last: bool, shortest: int) -> PackedSamples:
        enough = max(int(self._row_tokens * FULL_ENOUGH), shortest - 1)
        staying = {
            row
            for row, rest in self._rest_of.items()
            if rest > enough and self._num_windows - self._window_of[row] < MAX_WINDOWS_OPEN and not is_last
        }
        is_open = np.isin(self._rows, np.fromiter(staying, np.int64, len(staying)))
        left = PackedSamples(self._draws[~is_open], self._rows[~is_open])
        self._draws, self._rows = self._draws[is_open], self._rows[is_open]
        self._rest_of = {row: rest for row, rest in self._rest_of.items() if row in staying}
        self._window_of = {row: self._window_of[row] for row in staying}
        self._rests = _OpenRests(self._row_tokens)
        for row, rest in self._rest_of.items():
            self._rests.push(rest, row)
        return left


class _OpenRests:
    """The open rows by the tokens that are left in them."""

    def __init__(self, row_tokens: int) -> None:
        self._rows: list[list[int]] = [[] for _ in range(row_tokens + 1)]
        self._chunks = [0] * ((row_tokens >> CHUNK_BITS) + 1)
        """Bit i of chunk c is set where rows with c * 512 + i tokens left stand open."""
        self._filled_chunks = 0

    def smallest_from(self, length: int) -> int | None:
        """The smallest rest of an open row that holds ``length`` tokens; None where there is none."""
        chunk = length >> CHUNK_BITS
        bits = self._chunks[chunk] >> (length & CHUNK_MASK)
        if bits:
            return length + (bits & -bits).bit_length() - 1
        later = self._filled_chunks >> (chunk + 1)
        if not later:
            return None
        chunk += (later & -later).bit_length()
        bits = self._chunks[chunk]
        return (chunk << CHUNK_BITS) + (bits & -bits).bit_length() - 1

    def push(self, rest: int, row: int) -> None:
        """Say that ``row`` has ``rest`` tokens left."""
        rows = self._rows[rest]
        if not rows:
            self._chunks[rest >> CHUNK_BITS] |= 1 << (rest & CHUNK_MASK)
            self._filled_chunks |= 1 << (rest >> CHUNK_BITS)
        rows.append(row)

    def pop(self, rest: int) -> int:
        """A row with ``rest`` tokens left, the last that was pushed."""
        rows = self._rows[rest]
        row = rows.pop()
        if not rows:
            chunk = rest >> CHUNK_BITS
            self._chunks[chunk] &= ~(1 << (rest & CHUNK_MASK))
            if not self._chunks[chunk]:
                self._filled_chunks &= ~(1 << chunk)
        return row
