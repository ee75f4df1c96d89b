"""Conversations in any accepted spelling, read into one: lists of messages whose content is always a list of items.

Spellings: a list of messages; a list of such lists (alternatives); ``{"messages": ...}`` or ``{"conversations": ...}``;
``role``/``content`` or LLaVA's ``from``/``value``. In LLaVA's spelling, and in records that list their media apart,
``<image>`` and ``<video>`` in a text mark the place of the next medium.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import orjson

from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_prep.reasons import BAD_CONVERSATION
from vlm_prep.stored_texts import Message, Place, PlainConversation, read_plainly

ROLES = {"human": "user", "gpt": "assistant"}
"""LLaVA's names of the two sides."""

CONVERSATION_KEYS = ("messages", "conversations")
LIST_KEYS = {"image": ("images", "image"), "video": ("videos", "video")}
"""Kind -> the record's keys that list its media."""

TAG = re.compile(r"(<image>|<video>)")
MEDIA_TYPES = {"image": "image", "image_url": "image", "video": "video", "video_url": "video"}
LOCATION_KEYS = {
    "image": ("image", "image_url", "url", "path"),
    "video": ("video", "video_url", "url", "path"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A named door out of conversion."""

    reason: str
    detail: str


class RejectSample(Exception):
    """Raised inside the readers of one sample, and turned into ``Rejected`` by the sample's own reader."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.rejected = Rejected(reason=reason, detail=detail)


@frozen_by_types
class Record:
    """A sample as its source tells it: conversations whose media items hold a ``Place`` instead of a name."""

    plain: PlainConversation | None = None
    """In the place of ``conversations`` where there is one and nothing in it is unusual."""
    conversations: tuple[list[Message], ...] = ()
    listed: dict[str, tuple[str, ...]] | None = None
    """Kind -> media that the record lists apart from its messages, in order; None when it lists none."""
    source_id: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def places(self) -> list[Place]:
        """Every use of a medium, in the order of reading, over all conversations."""
        if self.plain is not None:
            return self.plain.places
        return [
            place
            for conversation in self.conversations
            for message in conversation
            for item in message["content"]
            if type(place := item.get(item["type"])) is Place
        ]

    def names(self) -> list[str]:
        """The media that are named, by an item or by the record's lists, each once, in order."""
        named = [place.name for place in self.places() if place.name is not None]
        listed = [name for names in (self.listed or {}).values() for name in names]
        return list(dict.fromkeys(named + listed))


def read_plain_record(text: bytes | memoryview) -> Record | None:
    """The record of a text that holds one ordinary conversation and nothing else; None for any other text.

    Such a text holds no number and no depth, so that orjson's reading of it needs none of ``json_text``'s checks.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    plain = read_plainly(value["messages"] if type(value) is dict and [*value] == ["messages"] else value)
    return None if plain is None else Record(plain)


def read_record(values: list[Any]) -> Record:
    """The record of one sample; several values (one per text key) give alternatives in their order.

    Raises RejectSample when a value is not a conversation.
    """
    outer = [value for value in values if isinstance(value, dict)]
    listed = _listed_media(outer) if outer else None
    plain = _plain(values[0]) if listed is None and len(values) == 1 else None
    conversations: list[list[Message]] = []
    for value in values if plain is None else ():
        conversations += [_conversation(part, tags=listed is not None) for part in _alternatives(value)]
    if not outer:
        return Record(conversations=tuple(conversations), plain=plain)
    return Record(
        conversations=tuple(conversations),
        plain=plain,
        listed=listed,
        source_id=next((str(value["id"]) for value in outer if value.get("id") is not None), None),
        meta={key: entry for value in outer for key, entry in value.items() if key not in _STRUCTURE_KEYS},
    )


def _plain(value: Any) -> PlainConversation | None:
    """The one conversation of a value, where nothing in it is unusual."""
    if isinstance(value, dict):
        value = next((value[key] for key in CONVERSATION_KEYS if key in value), None)
    return read_plainly(value)


STORED_KEYS = ["role", "content"]
"""Of a message that is spelled as it is stored."""
_STRUCTURE_KEYS = {*CONVERSATION_KEYS, *LIST_KEYS["image"], *LIST_KEYS["video"]}


def _listed_media(values: list[dict[str, Any]]) -> dict[str, tuple[str, ...]] | None:
    """Media that the records list apart; an empty list says "none", which is not the same as not listing."""
    listed: dict[str, tuple[str, ...]] = {}
    for value in values:
        for kind, keys in LIST_KEYS.items():
            for key in keys:
                if value.get(key) is not None:
                    listed[kind] = listed.get(kind, ()) + _media_list(kind, value[key])
    return listed or None


def _media_list(kind: str, value: Any) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    return tuple(_location(kind, entry) for entry in entries)


def _alternatives(value: Any) -> list[list[Any]]:
    """The conversations of one JSON value, each still in its own spelling."""
    if isinstance(value, dict):
        for key in CONVERSATION_KEYS:
            if key in value:
                return _alternatives(value[key])
        raise RejectSample(BAD_CONVERSATION, f"an object with {_keys(value)}, expected messages or conversations")
    if not isinstance(value, list) or not value:
        raise RejectSample(BAD_CONVERSATION, f"{_shown(value)}, expected a list of messages")
    if all(isinstance(message, dict) and ("role" in message or "from" in message) for message in value):
        return [value]
    if all(isinstance(part, list) or is_wrapped(part) for part in value):
        return [conversation for part in value for conversation in _alternatives(part)]
    raise RejectSample(BAD_CONVERSATION, "a list of neither messages nor conversations")


def is_wrapped(value: Any) -> bool:
    """Is it a record that holds its conversation under a key?"""
    return isinstance(value, dict) and any(key in value for key in CONVERSATION_KEYS)


def _conversation(messages: list[dict[str, Any]], *, tags: bool) -> list[Message]:
    seen = {"image": 0, "video": 0}
    return [_message(message, tags=tags, seen=seen) for message in messages]


def _message(message: dict[str, Any], *, tags: bool, seen: dict[str, int]) -> Message:
    """One message: role, content, then its other keys in their order. ``seen`` counts the unnamed media so far."""
    role = message.get("role", message.get("from"))
    if not isinstance(role, str):
        raise RejectSample(BAD_CONVERSATION, f"role {_shown(role)}, expected a string")
    if [*message] == STORED_KEYS:
        return {"role": role, "content": _items(message["content"], tags=tags, seen=seen)}
    is_llava = "value" in message and "content" not in message
    content = message["value"] if is_llava else message.get("content")
    rest = {key: value for key, value in message.items() if key not in ("role", "from", "content", "value")}
    items = _items(content, tags=tags or is_llava, seen=seen)
    return {"role": ROLES.get(role, role) if "role" not in message else role, "content": items, **rest}


def _items(content: Any, *, tags: bool, seen: dict[str, int]) -> list[dict[str, Any]]:
    if content is None:
        return []
    if isinstance(content, str):
        return _text_items(content, {}, tags=tags, seen=seen)
    if not isinstance(content, list):
        raise RejectSample(BAD_CONVERSATION, f"content {_shown(content)}, expected a string or a list of items")
    items: list[dict[str, Any]] = []
    for entry in content:
        if not tags and (stored := _stored_item(entry)):
            items.append(stored)
            continue
        item = {"type": "text", "text": entry} if isinstance(entry, str) else entry
        if not isinstance(item, dict):
            raise RejectSample(BAD_CONVERSATION, f"item {_shown(item)}, expected an object")
        items += _item(item, tags=tags, seen=seen)
    return items


def _stored_item(entry: Any) -> dict[str, Any] | None:
    """The item, where it is spelled as it is stored, as most are: a type, and a text or a name under that key."""
    if type(entry) is not dict or len(entry) != 2:
        return None
    (first, kind), (second, value) = entry.items()
    if first != "type" or second != kind or type(value) is not str:
        return None
    if kind == "text":
        return entry
    return {"type": kind, kind: Place(kind, value)} if value and kind in LOCATION_KEYS else None


def _item(item: dict[str, Any], *, tags: bool, seen: dict[str, int]) -> list[dict[str, Any]]:
    """One item; keys that are null are left out, since chat templates ask which keys an item has."""
    item = {key: value for key, value in item.items() if value is not None}
    kind = item.get("type", next((key for key in ("text", *MEDIA_TYPES) if key in item), None))
    if kind == "text":
        if not isinstance(item.get("text"), str):
            raise RejectSample(BAD_CONVERSATION, f"text item with text {_shown(item.get('text'))}")
        rest = {key: value for key, value in item.items() if key not in ("type", "text")}
        return _text_items(item["text"], rest, tags=tags, seen=seen)
    if isinstance(kind, str) and kind in MEDIA_TYPES:
        return [_media_item(MEDIA_TYPES[kind], item, seen)]
    raise RejectSample(BAD_CONVERSATION, f"item of type {_shown(kind)}, expected text, image or video")


def _media_item(kind: str, item: dict[str, Any], seen: dict[str, int]) -> dict[str, Any]:
    key = next((key for key in LOCATION_KEYS[kind] if key in item), None)
    if key is None:
        return {"type": kind, kind: _next_place(kind, seen), **{k: v for k, v in item.items() if k != "type"}}
    location = item[key]
    options = {name: value for name, value in item.items() if name not in ("type", key)}
    if isinstance(location, dict):
        options = {**{name: value for name, value in location.items() if name != "url"}, **options}
    return {"type": kind, kind: Place(kind, _location(kind, location)), **options}


def _location(kind: str, value: Any) -> str:
    """The name, path or URL of a medium; ``{"url": ...}`` is OpenAI's spelling."""
    location = value.get("url") if isinstance(value, dict) else value
    if not isinstance(location, str) or not location:
        what = "a list of frames" if isinstance(location, list) else _shown(location)
        raise RejectSample(BAD_CONVERSATION, f"{kind} is {what}, expected a name, a path or a URL")
    return location


def _text_items(text: str, rest: dict[str, Any], *, tags: bool, seen: dict[str, int]) -> list[dict[str, Any]]:
    """A text, cut at its media tags. White space next to a tag belongs to the spelling, not to the text."""
    pieces = TAG.split(text) if tags else [text]
    if len(pieces) == 1:
        return [{"type": "text", "text": text, **rest}]
    items: list[dict[str, Any]] = []
    for piece in pieces:
        if TAG.fullmatch(piece):
            kind = piece[1:-1]
            items.append({"type": kind, kind: _next_place(kind, seen)})
        elif piece.strip():
            items.append({"type": "text", "text": piece.strip(), **rest})
    return items


def _next_place(kind: str, seen: dict[str, int]) -> Place:
    seen[kind] += 1
    return Place(kind, None, seen[kind])


def is_remote(name: str) -> bool:
    """Is this a medium on the network?"""
    return name.lower().startswith(("http://", "https://", "s3://", "gs://", "ftp://"))


def is_web(name: str) -> bool:
    """Is this medium named by an http(s) URL?"""
    return name.lower().startswith(("http://", "https://"))


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"


def _keys(value: dict[str, Any]) -> str:
    return "keys " + ", ".join(list(map(str, value))[:8]) if value else "no keys"
