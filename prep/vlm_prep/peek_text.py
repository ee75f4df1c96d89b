"""Samples as text for people: who says what, with which media."""

from vlm_prep.built_sample import BuiltMedium, BuiltSample
from vlm_prep.conversation_text import conversation_lines, printable
from vlm_prep.raw_sample import RejectedSample

MAX_CHARACTERS = 500
"""So much of one message is shown."""


def sample_text(sample: BuiltSample | RejectedSample) -> str:
    """A sample in some lines; what a terminal would obey is shown escaped."""
    lines = [f"--- {sample.origin.sample_id}"]
    if isinstance(sample, RejectedSample):
        lines.append(f"rejected: {sample.rejected.reason}: {sample.rejected.detail}")
    else:
        lines += [_medium(medium) for medium in sample.media]
        lines += conversation_lines(sample.conversations, max_characters=MAX_CHARACTERS)
    return "\n".join(printable(line) for line in lines)


def _medium(medium: BuiltMedium) -> str:
    facts = medium.facts
    film = f", {facts.frames} frames, {facts.duration} s" if facts.kind == "video" else ""
    size = f"{facts.format}, {facts.width} x {facts.height}{film}, {facts.size:,} bytes"
    return f"{facts.name}: {size} ({medium.source_name[:200]})"
