"""How do a conversation and any other text of the data look on a terminal, which obeys none of it?"""

from collections.abc import Sequence
from typing import Any


def conversation_lines(
    conversations: Sequence[list[dict[str, Any]]], *, max_characters: int | None = None
) -> list[str]:
    """``role: words`` for every message, each alternative under its number where there are several."""
    lines = []
    for number, conversation in enumerate(conversations):
        lines += [f"alternative {number}:"] if len(conversations) > 1 else []
        lines += [f"{message['role']}: {_words(message, max_characters)}" for message in conversation]
    return lines


def printable(line: str) -> str:
    """The line with every character escaped that a terminal would obey; its own line ends are indented."""
    spelled = line.replace("\n", "\n    ")
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in spelled
    )


def _words(message: dict[str, Any], max_characters: int | None) -> str:
    thought = message.get("reasoning_content")
    words = [f"(thinks: {thought})"] if isinstance(thought, str) else []
    words += [item["text"] if item["type"] == "text" else f"<{item[item['type']]}>" for item in message["content"]]
    text = " ".join(words)
    if max_characters is None or len(text) <= max_characters:
        return text
    return f"{text[:max_characters]}... ({len(text):,} characters)"
