"""How a source is cut into parts (semantics A2): pure rules over names and sizes, whatever the number of workers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlm_catalogs.hashing import joined_hash, order_key
from vlm_catalogs.sample import SHARD_FORMAT

MIB = 1 << 20
TAR_PART_BYTES = 512 * MIB
TAR_PART_MIN_BYTES = 128 * MIB
TAR_PART_EVERY = 8
JSONL_PART_BYTES = 64 * MIB
ARRAY_PART_ROWS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInput:
    """One tar or one range of a file: what a part is made of."""

    name: str
    """Relative to the source's root."""
    path: str
    """Where it lies on this machine; in no hash and in no output."""
    bytes: int
    content_id: str
    """Semantics A3."""
    entry: str = ""
    """i4: the data_list entry that the tar belongs to."""
    key: str = ""
    """i4: the data key."""
    begin: int = 0
    """Files: the range is [begin, begin + bytes)."""
    first_row: int = 0
    num_rows: int = 0
    """Tables: the rows are [first_row, first_row + num_rows)."""

    def as_json(self) -> dict[str, Any]:
        """The entry of part.json: nothing that depends on this machine."""
        described = {"name": self.name, "bytes": self.bytes, "content_id": self.content_id}
        if self.entry:
            return described
        rows = {"num_rows": self.num_rows} if self.num_rows else {}
        return {**described, "begin": self.begin, "first_row": self.first_row, **rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """One part before conversion."""

    name: str
    inputs: tuple[PartInput, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the inputs."""
        return sum(part_input.bytes for part_input in self.inputs)


def plan_part(inputs: Sequence[PartInput]) -> PlannedPart:
    """The part of these inputs, named by their names, sizes and content ids."""
    fields = [value for part_input in inputs for value in part_input.as_json().values()]
    return PlannedPart(name=joined_hash(fields), inputs=tuple(inputs))


def cut_tars(entries: Sequence[tuple[str, int]]) -> list[list[str]]:
    """Runs of consecutive (tar path, bytes) entries: closed at 512 MiB, or from 128 MiB on by the path's own hash.

    The second rule makes an inserted tar move only its neighbours. A tar is never split.
    """
    runs: list[list[str]] = [[]]
    run_bytes = 0
    for path, size in entries:
        runs[-1].append(path)
        run_bytes += size
        is_cut = order_key(path) % TAR_PART_EVERY == 0 and run_bytes >= TAR_PART_MIN_BYTES
        if run_bytes >= TAR_PART_BYTES or is_cut:
            runs.append([])
            run_bytes = 0
    return [run for run in runs if run]


def plan_pieces(pieces: Sequence[PartInput]) -> list[PlannedPart]:
    """The parts of pieces that are never split (whole tars, row groups), cut as tars are; neighbours in a file join."""
    by_name = {f"{piece.name}#{piece.first_row}": piece for piece in pieces}
    runs = cut_tars([(name, piece.bytes) for name, piece in by_name.items()])
    return [plan_part(_joined([by_name[name] for name in run])) for run in runs]


def _joined(pieces: Sequence[PartInput]) -> list[PartInput]:
    joined: list[PartInput] = []
    for piece in pieces:
        if joined and joined[-1].name == piece.name:
            last = joined.pop()
            piece = replace(last, bytes=last.bytes + piece.bytes, num_rows=last.num_rows + piece.num_rows)
        joined.append(piece)
    return joined


def layout_hash(options: Sequence[object]) -> str:
    """The folder of a source's format: what decides the written bytes apart from the inputs, and ``SHARD_FORMAT``."""
    return joined_hash([SHARD_FORMAT, *options])
