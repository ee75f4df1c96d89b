"""What is stored and indexed of a sample's conversations: canonical JSON, a hash of the wording, counts."""

from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple

from vlm_catalogs import json_text
from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.hashing import joined_hash

Message = dict[str, Any]


class Place(NamedTuple):
    """Where an item's medium comes from: a name, or the position among the sample's media of that kind."""

    kind: str
    name: str | None
    position: int | None = None

    def __str__(self) -> str:
        return self.name if self.name is not None else f"<{self.kind}> number {self.position}"


class StoredTexts(NamedTuple):
    """What shards and index tables hold of the conversations of one sample."""

    messages_json: str
    """The first conversation."""
    alternatives_json: str
    """The list of the others."""
    text_hash: str
    """The xxh3_128 over (role, text, placeholder kinds) of all conversations, whatever the media."""
    num_conversations: int
    num_turns: int
    """Messages of the first conversation."""
    text_chars: int
    """Characters of text and reasoning in the first conversation."""

    @property
    def conversations(self) -> list[list[Message]]:
        """The conversations again, read from their text."""
        return [json_text.loads(self.messages_json), *json_text.loads(self.alternatives_json)]


def stored_texts(conversations: list[list[Message]]) -> StoredTexts:
    """What is stored of conversations in canonical form, the first one and its alternatives."""
    messages, *alternatives = conversations
    wording = json_text.dumps([[_wording(message) for message in part] for part in conversations])
    return StoredTexts(
        messages_json=json_text.dumps(messages),
        alternatives_json=json_text.dumps(alternatives) if alternatives else "[]",
        text_hash=joined_hash([wording]),
        num_conversations=len(conversations),
        num_turns=len(messages),
        text_chars=_text_chars(messages),
    )


def _wording(message: Message) -> list[Any]:
    items = [item["text"] if item["type"] == "text" else {"kind": item["type"]} for item in message["content"]]
    return [message["role"], message.get("reasoning_content"), items]


def _text_chars(messages: list[Message]) -> int:
    texts = [item["text"] for message in messages for item in message["content"] if item["type"] == "text"]
    texts += [text for message in messages if isinstance(text := message.get("reasoning_content"), str)]
    return sum(map(len, texts))


@frozen_by_types
class PlainConversation:
    """One conversation whose stored text was written while it was read: only the names of its media are missing."""

    text: str
    """The canonical text, NAME in the place of each name."""
    places: list[Place]
    text_hash: str
    num_turns: int
    text_chars: int

    def stored(self, names: list[str]) -> StoredTexts:
        """What is stored, with the media at ``places`` called ``names``."""
        text = self.text
        if len(names) == 1:
            text = text.replace(NAME, names[0])
        elif names:
            first, *pieces = text.split(NAME)
            text = first + "".join([name + piece for name, piece in zip(names, pieces, strict=True)])
        return StoredTexts(text, "[]", self.text_hash, 1, self.num_turns, self.text_chars)


NAME = "\0"
"""Stands for a name until it is known; canonical text is printable ASCII."""
MEDIA_ITEMS = {
    kind: (f'{{"type": "{kind}", "{kind}": "{NAME}"}}', f'{{"kind": "{kind}"}}') for kind in ("image", "video")
}
"""Kind -> the text of an item, and of what stands for it in the wording."""


def read_plainly(messages: Any) -> PlainConversation | None:
    """The conversation, where it is spelled as it is stored, as nearly all are; None where it needs more care.

    One pass gives the text and the wording that ``stored_texts`` writes of the conversation as ``read_record`` reads
    it (a test holds them equal): without lists of messages in between, it takes a fifth of the time.
    """
    places: list[Place] = []
    if (pieces := plain_pieces(messages, places)) is None:
        return None
    text, wording, text_chars = pieces
    return PlainConversation(text, places, joined_hash((wording,)), len(messages), text_chars)


def plain_pieces(messages: Any, places: list[Place]) -> tuple[str, str, int] | None:
    """The text, the wording and the characters of a plain conversation; adds its media to ``places``."""
    if type(messages) is not list or not messages:
        return None
    texts: list[str] = []
    wordings: list[str] = []
    text_chars = 0
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return None
        (first, role), (second, content) = message.items()
        if first != "role" or second != "content" or type(role) is not str:
            return None
        if type(content) is str:
            words = quoted(content)
            items = f'{{"type": "text", "text": {words}}}'
            text_chars += len(content)
        elif (read := _read_items(content, places)) is not None:
            items, words, num_chars = read
            text_chars += num_chars
        else:
            return None
        role = quoted(role)
        texts.append(f'{{"role": {role}, "content": [{items}]}}')
        wordings.append(f"[{role}, null, [{words}]]")
    return f"[{', '.join(texts)}]", f"[[{', '.join(wordings)}]]", text_chars


def _read_items(content: Any, places: list[Place]) -> tuple[str, str, int] | None:
    """The items' text, their wording and their characters of text; adds the places of media."""
    if type(content) is not list:
        return None
    items = []
    wordings = []
    num_chars = 0
    for item in content:
        if type(item) is not dict or len(item) != 2:
            return None
        (first, kind), (second, value) = item.items()
        if first != "type" or second != kind or type(value) is not str:
            return None
        if kind == "text":
            words = quoted(value)
            items.append(f'{{"type": "text", "text": {words}}}')
            wordings.append(words)
            num_chars += len(value)
        elif value and kind in MEDIA_ITEMS:
            text, words = MEDIA_ITEMS[kind]
            items.append(text)
            wordings.append(words)
            places.append(Place(kind, value))
        else:
            return None
    return ", ".join(items), ", ".join(wordings), num_chars
