"""One sample of the index as text for people."""

from collections.abc import Sequence
from typing import Any

from vlm_catalogs.text_table import text_table
from vlm_prep.conversation_text import conversation_lines, printable
from vlm_prep.show import ShownSample

TOKENS = ("total", "text", "image", "video", "supervised")


def shown_text(shown: ShownSample) -> str:
    """The sample in some lines; what a terminal would obey is shown escaped."""
    row = shown.sample
    lines = [f"{row['dataset']}/{row['sample_id']}", f"  {shown.decision()}", *_origin(row), *_place(shown)]
    lines += _section("media", [_medium(medium) for medium in shown.media])
    lines += _section("lengths (tokens)", _table(_length_rows(shown.lengths)))
    lines += _section("draws of the run", _table(_draw_rows(shown.draws)))
    lines += _section("conversation", conversation_lines(shown.conversations))
    return "\n".join(printable(line) for line in lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}".rstrip() for line in lines)] if lines else []


def _origin(row: dict[str, Any]) -> list[str]:
    member = f", member {row['member']}" if row["member"] else ""
    offset = f", from byte {row['byte_offset']:,}" if row["byte_offset"] is not None else ""
    own = [f"  its own id: {row['source_id']}"] if row["source_id"] is not None else []
    return [f"  from {row['source_uri']}{member}{offset}", *own]


def _place(shown: ShownSample) -> list[str]:
    row = shown.sample
    if shown.shard is None:
        return [f"  part {row['part']}"]
    held = f"shard {row['shard']}, sample {row['index_in_shard']}, bytes {row['byte_begin']:,} to {row['byte_end']:,}"
    return [f"  part {row['part']}, {held}", f"  {shown.copies.shown(shown.shard)}"]


def _medium(medium: dict[str, Any]) -> str:
    size = f"{medium['format']}, {medium['width']} x {medium['height']}"
    if medium["kind"] == "video":
        size += f", {_number(medium['frames'])} frames, {_number(medium['duration'])} s, {_number(medium['fps'])} fps"
    marks = [] if medium["referenced"] else ["used by no message"]
    marks += ["animated"] if medium["animated"] else []
    marks += [f"EXIF orientation {medium['orientation']}"] if (medium["orientation"] or 1) != 1 else []
    facts = ", ".join([size, f"{medium['bytes']:,} bytes", *marks])
    return f"{medium['name']}: {facts}, {medium['xxh3_128']} ({str(medium['source_name'])[:200]})"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.3f}".rstrip("0").rstrip(".")


def _table(rows: list[list[str]]) -> list[str]:
    return text_table(rows[0], rows[1:]).splitlines() if len(rows) > 1 else []


def _length_rows(lengths: Sequence[dict[str, Any]]) -> list[list[str]]:
    head = ["encoding", "alternative", *TOKENS, "vision patches"]
    return [head, *(_length_row(one) for one in lengths)]


def _length_row(one: dict[str, Any]) -> list[str]:
    name = [one["encoding"], str(one["alternative"])]
    if one["problem"] is not None:
        return [f"{name[0]}: {one['problem']}", name[1], *[""] * (len(TOKENS) + 1)]
    return [*name, *(f"{one[f'{kind}_tokens']:,}" for kind in TOKENS), f"{one['vision_patches']:,}"]


def _draw_rows(draws: Sequence[dict[str, Any]]) -> list[list[str]]:
    head = ["epoch", "step", "row", "position", "alternative", "tokens", "loss"]
    numbers = [[str(one[name]) for name in head[:-1]] for one in draws]
    losses = ["not trained on" if one["loss"] is None else f"{one['loss']:.4f}" for one in draws]
    return [head, *([*row, loss] for row, loss in zip(numbers, losses, strict=True))]
