"""How much of the parts in work stands in staging? Looked up for the live view, so that workers need not tell."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_prep.stage_counts import Key, Made, Piece

COUNT = struct.Struct("<I")
"""What a shard begins with: how many samples it holds."""


def staged_so_far(staging: Path, pieces: Sequence[Piece], *, expansion: Mapping[str, float]) -> dict[Key, Made]:
    """What stands in ``staging`` of each piece; its share of the work is what its shards are of those to come.

    ``expansion``: source -> bytes written for each byte read, about.
    """
    found = {}
    for piece in pieces:
        made = _staged(staging, piece)
        expected = piece.work * expansion.get(piece.source, 1.0)
        share = min(0.99, made.bytes / expected) if expected > 0 else 0.0
        found[piece.key] = Made(samples=made.samples, bytes=made.bytes, share=share)
    return found


def _staged(staging: Path, piece: Piece) -> Made:
    samples = size = 0
    for path in _shards(staging, f"{piece.source}-{piece.part}-"):
        try:
            size += path.stat().st_size
            with path.open("rb") as file:
                head = file.read(COUNT.size)
        except OSError:  # published meanwhile
            continue
        samples += COUNT.unpack(head)[0] if len(head) == COUNT.size else 0
    return Made(samples=samples, bytes=size)


def _shards(staging: Path, begin: str) -> list[Path]:
    try:
        folders = [folder for folder in staging.iterdir() if folder.name.startswith(begin)]
        return [path for folder in folders for path in folder.iterdir() if path.suffix == ".mds"]
    except OSError:  # published meanwhile, or on another machine
        return []
