"""A raw sample made whole: canonical conversations, media with facts and hashes, the payloads of its MDS columns."""

from vlm_catalogs import json_text
from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.hashing import content_hash, joined_hash
from vlm_catalogs.sample import MediaFacts
from vlm_prep.conversation import RejectSample
from vlm_prep.media_facts import HeaderFacts, UnreadableMedia, read_media_facts
from vlm_prep.naming import NamedMedium, name_media, short_name
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.reasons import SAMPLE_TOO_LARGE
from vlm_prep.stored_texts import Message, StoredTexts


@frozen_by_types
class BuiltMedium:
    """One medium as it is stored."""

    named: NamedMedium
    content: bytes | memoryview
    header: HeaderFacts
    offset: int
    """Where it begins in the ``media`` column, bytes."""
    xxh3_128: str

    @property
    def facts(self) -> MediaFacts:
        """Its row of ``media_table``."""
        return MediaFacts(
            name=self.named.name,
            kind=self.header.kind,
            format=self.header.format,
            offset=self.offset,
            size=len(self.content),
            xxh3_128=self.xxh3_128,
            width=self.header.width,
            height=self.header.height,
            duration=self.header.duration,
            fps=self.header.fps,
            frames=self.header.frames,
        )


@frozen_by_types
class BuiltSample:
    """Everything that a shard and the index tables hold of one sample."""

    origin: Origin
    source_id: str | None
    texts: StoredTexts
    media: list[BuiltMedium]
    media_table_json: str
    meta_json: str

    @property
    def messages_json(self) -> str:
        """The first conversation."""
        return self.texts.messages_json

    @property
    def conversations(self) -> list[list[Message]]:
        """``messages`` first, then the alternatives."""
        return self.texts.conversations

    def payloads(self, dataset: str) -> list[bytes | list[bytes | memoryview]]:
        """The MDS columns by name: alternatives, dataset, media, media_table, messages, meta, sample_id."""
        return [
            self.texts.alternatives_json.encode(),
            dataset.encode(),
            [medium.content for medium in self.media],
            self.media_table_json.encode(),
            self.texts.messages_json.encode(),
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
    texts, named = name_media(raw.record, kinds, match_single=raw.has_bare_medium)
    media = _place_media(named, raw, headers)
    return BuiltSample(
        origin=raw.origin,
        source_id=raw.record.source_id,
        texts=texts,
        media=media,
        media_table_json=f"[{', '.join(map(_table_row, media))}]",
        meta_json=json_text.dumps(raw.record.meta) if raw.record.meta else "{}",
    )


def _read_header(name: str, content: bytes | memoryview) -> HeaderFacts:
    try:
        return read_media_facts(content)
    except UnreadableMedia as error:
        raise RejectSample(error.reason, f"{short_name(name)!r}: {error.detail}") from error


def _place_media(named: list[NamedMedium], raw: RawSample, headers: dict[str, HeaderFacts]) -> list[BuiltMedium]:
    """The media back to back, in the order of their names."""
    placed = []
    offset = 0
    for medium in named:
        content, header = raw.media[medium.source_name], headers[medium.source_name]
        placed.append(
            BuiltMedium(named=medium, content=content, header=header, offset=offset, xxh3_128=content_hash(content))
        )
        offset += len(content)
    return placed


def _table_row(medium: BuiltMedium) -> str:
    """The canonical text of ``facts.as_row()``; that of an image is put together here, in a fifth of the time."""
    header = medium.header
    if header.kind != "image":
        return json_text.dumps(medium.facts.as_row())
    return (
        f'{{"name": "{medium.named.name}", "kind": "image", "format": "{header.format}", "offset": {medium.offset}, '
        f'"size": {len(medium.content)}, "xxh3_128": "{medium.xxh3_128}", '
        f'"width": {header.width}, "height": {header.height}}}'
    )


def media_hash(media: list[BuiltMedium]) -> str | None:
    """The xxh3_128 over the ordered hashes of the media; None without media."""
    return joined_hash([medium.xxh3_128 for medium in media]) if media else None
