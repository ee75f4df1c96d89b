"""Building blocks of the demo's conversations: messages whose media are named by their file below ``media/``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = dict[str, Any]
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSample:
    """One logical sample, before it is written in one of the forms."""

    name: str
    """Unique within its dataset; dots are legal."""
    conversations: tuple[list[Message], ...]
    """The conversation, then its alternatives."""
    i4_text: str = "list"
    """How the i4 text member spells it: ``list`` | ``messages`` | ``conversations``; alternatives are always lists."""

    @property
    def media(self) -> tuple[str, ...]:
        """Files below ``media/``, in the order of first reference."""
        items = (item for messages in self.conversations for message in messages for item in content_items(message))
        return tuple(dict.fromkeys(item[item["type"]] for item in items if item["type"] != "text"))


def content_items(message: Message) -> list[dict[str, Any]]:
    """The items of a message; a plain string is one text item."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def picture(file: str, **options: Any) -> dict[str, Any]:
    """An image item."""
    return {"type": "image", "image": file, **options}


def film(file: str, **options: Any) -> dict[str, Any]:
    """A video item."""
    return {"type": "video", "video": file, **options}


def system(text: str) -> Message:
    """A system message."""
    return {"role": "system", "content": text}


def user(text: str, *media: dict[str, Any]) -> Message:
    """A user turn: the media first, then the text; without media the content is a plain string."""
    return {"role": "user", "content": [*media, {"type": "text", "text": text}] if media else text}


def assistant(text: str, *, reasoning: str | None = None) -> Message:
    """An assistant turn."""
    thought = {} if reasoning is None else {"reasoning_content": reasoning}
    return {"role": "assistant", "content": text, **thought}


def about(name: str, file: str, *turns: str) -> DemoSample:
    """A sample on one image: questions and answers in turn, the image before the first question."""
    first, *rest = turns
    messages = [user(first, picture(file))]
    messages += [assistant(turn) if number % 2 == 0 else user(turn) for number, turn in enumerate(rest)]
    return DemoSample(name=name, conversations=(messages,))


def captioned(name: str, question: str) -> DemoSample:
    """A sample whose answer is what the drawing's own record says: its title and its keywords."""
    file = f"clipart/{name}.png"
    record = json.loads((HERE / "sources.json").read_text())[file]
    answer = f"{record['title']}. Keywords: {', '.join(record['keywords'])}."
    return about(name, file, question, answer)
