"""Samples as text for people: who says what, with which media."""

from typing import Any

from vlm_prep.built_sample import BuiltMedium, BuiltSample
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
        for number, conversation in enumerate(sample.conversations):
            lines += [f"alternative {number}:"] if len(sample.conversations) > 1 else []
            lines += [f"{message['role']}: {_words(message)}" for message in conversation]
    return "\n".join(_printable(line) for line in lines)


def _medium(medium: BuiltMedium) -> str:
    facts = medium.facts
    film = f", {facts.frames} frames, {facts.duration} s" if facts.kind == "video" else ""
    size = f"{facts.format}, {facts.width} x {facts.height}{film}, {facts.size:,} bytes"
    return f"{facts.name}: {size} ({medium.named.source_name[:200]})"


def _words(message: dict[str, Any]) -> str:
    thought = message.get("reasoning_content")
    words = [f"(thinks: {thought})"] if isinstance(thought, str) else []
    words += [item["text"] if item["type"] == "text" else f"<{item[item['type']]}>" for item in message["content"]]
    text = " ".join(words)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}... ({len(text):,} characters)"


def _printable(line: str) -> str:
    spelled = line.replace("\n", "\n    ")
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in spelled
    )
