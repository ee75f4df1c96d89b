"""A raw sample made whole: canonical conversations, media with facts and hashes, the payloads of its MDS columns."""

from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.hashing import content_hash, joined_hash
from vlm_catalogs.sample import MediaFacts
from vlm_prep.conversation import Message, RejectSample
from vlm_prep.media_facts import HeaderFacts, UnreadableMedia, read_media_facts
from vlm_prep.naming import NamedMedium, name_media, short_name
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.reasons import SAMPLE_TOO_LARGE


@frozen_by_types
class BuiltMedium:
    """One medium as it is stored."""

    named: NamedMedium
    content: bytes | memoryview
    header: HeaderFacts
    facts: MediaFacts


@frozen_by_types
class BuiltSample:
    """Everything that a shard and the index tables hold of one sample."""

    origin: Origin
    source_id: str | None
    conversations: list[list[Message]]
    """``messages`` first, then the alternatives."""
    media: tuple[BuiltMedium, ...]
    messages_json: str
    alternatives_json: str
    media_table_json: str
    meta_json: str

    def payloads(self, dataset: str) -> list[bytes | list[bytes | memoryview]]:
        """The MDS columns by name: alternatives, dataset, media, media_table, messages, meta, sample_id."""
        return [
            self.alternatives_json.encode(),
            dataset.encode(),
            [medium.content for medium in self.media],
            self.media_table_json.encode(),
            self.messages_json.encode(),
            self.meta_json.encode(),
            self.origin.sample_id.encode(),
        ]


def build_sample(raw: RawSample, limits: Limits) -> BuiltSample | RejectedSample:
    """The sample as it is stored, or the named door it leaves by."""
    try:
        return _build(raw, limits)
    except RejectSample as door:
        return RejectedSample(origin=raw.origin, rejected=door.rejected, source_id=raw.record.source_id)


def _build(raw: RawSample, limits: Limits) -> BuiltSample:
    size = sum(map(len, raw.media.values()))
    if size > limits.max_sample_bytes:
        raise RejectSample(
            SAMPLE_TOO_LARGE, f"{size:,} bytes of media, max_sample_bytes is {limits.max_sample_bytes:,}"
        )
    headers = {name: _read_header(name, content) for name, content in raw.media.items()}
    kinds = {name: header.kind for name, header in headers.items()}
    named = name_media(raw.record, kinds, match_single=raw.has_bare_medium)
    media = _place_media(named.media, raw, headers)
    return BuiltSample(
        origin=raw.origin,
        source_id=raw.record.source_id,
        conversations=[named.messages, *named.alternatives],
        media=media,
        messages_json=json_text.dumps(named.messages),
        alternatives_json=json_text.dumps(named.alternatives) if named.alternatives else "[]",
        media_table_json=json_text.dumps([medium.facts.as_row() for medium in media]),
        meta_json=json_text.dumps(raw.record.meta) if raw.record.meta else "{}",
    )


def _read_header(name: str, content: bytes | memoryview) -> HeaderFacts:
    try:
        return read_media_facts(memoryview(content))
    except UnreadableMedia as error:
        raise RejectSample(error.reason, f"{short_name(name)!r}: {error.detail}") from error


def _place_media(
    named: tuple[NamedMedium, ...], raw: RawSample, headers: dict[str, HeaderFacts]
) -> tuple[BuiltMedium, ...]:
    """The media back to back, in the order of their names."""
    placed = []
    offset = 0
    for medium in named:
        content, header = raw.media[medium.source_name], headers[medium.source_name]
        facts = _facts(medium, content, header, offset)
        placed.append(BuiltMedium(named=medium, content=content, header=header, facts=facts))
        offset += len(content)
    return tuple(placed)


def _facts(medium: NamedMedium, content: bytes | memoryview, header: HeaderFacts, offset: int) -> MediaFacts:
    return MediaFacts(
        name=medium.name,
        kind=header.kind,
        format=header.format,
        offset=offset,
        size=len(content),
        xxh3_128=content_hash(content),
        width=header.width,
        height=header.height,
        duration=header.duration,
        fps=header.fps,
        frames=header.frames,
    )


def text_hash(conversations: list[list[Message]]) -> str:
    """The xxh3_128 over (role, text, placeholder kinds) of all conversations, whatever the media."""
    return joined_hash([json_text.dumps([[_wording(message) for message in part] for part in conversations])])


def _wording(message: Message) -> list[Any]:
    items = [item["text"] if item["type"] == "text" else {"kind": item["type"]} for item in message["content"]]
    return [message["role"], message.get("reasoning_content"), items]


def media_hash(media: tuple[BuiltMedium, ...]) -> str | None:
    """The xxh3_128 over the ordered hashes of the media; None without media."""
    return joined_hash(medium.facts.xxh3_128 for medium in media) if media else None


def text_chars(messages: list[Message]) -> int:
    """Characters of text and reasoning in one conversation."""
    texts = [item["text"] for message in messages for item in message["content"] if item["type"] == "text"]
    texts += [text for message in messages if isinstance(text := message.get("reasoning_content"), str)]
    return sum(map(len, texts))
