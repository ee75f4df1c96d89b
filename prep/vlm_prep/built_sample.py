"""A raw sample made whole: canonical conversations, media with facts and hashes, the payloads of its MDS columns."""

from vlm_catalogs import json_text
from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.hashing import content_hash, joined_hash
from vlm_catalogs.sample import MediaFacts
from vlm_prep.conversation import RejectSample
from vlm_prep.media_facts import HeaderFacts, UnreadableMedia, read_media_facts
from vlm_prep.naming import name_media, short_name
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.reasons import SAMPLE_TOO_LARGE
from vlm_prep.stored_texts import Message, StoredTexts


@frozen_by_types
class BuiltMedium:
    """One medium as it is stored."""

    name: str
    """Canonical: image_0, video_0, ..."""
    source_name: str
    content: bytes | memoryview
    header: HeaderFacts
    xxh3_128: str
    offset: int = 0
    """Where it begins in the ``media`` column, bytes."""
    referenced: bool = True
    """Does any conversation use it?"""

    @property
    def facts(self) -> MediaFacts:
        """Its row of ``media_table``."""
        return MediaFacts(
            name=self.name,
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
    if built := _build_plainly(raw):
        return built
    headers = {name: _read_header(name, content) for name, content in raw.media.items()}
    texts, media = _name_with_care(raw, headers)
    media_table = ", ".join([_table_row(medium) for medium in media])
    meta = json_text.dumps(raw.record.meta) if raw.record.meta else "{}"
    return BuiltSample(raw.origin, raw.record.source_id, texts, media, f"[{media_table}]", meta)


def _read_header(name: str, content: bytes | memoryview) -> HeaderFacts:
    try:
        return read_media_facts(content)
    except UnreadableMedia as error:
        raise RejectSample(error.reason, f"{short_name(name)!r}: {error.detail}") from error


def _build_plainly(raw: RawSample) -> BuiltSample | None:
    """The sample of a plain conversation about one medium, or about none; None for other samples.

    Gives what ``_name_with_care`` leads to (a test holds them equal) without its tables of names.
    """
    record, plain = raw.record, raw.record.plain
    if plain is None or record.meta or not len(raw.media) == len(plain.places) <= 1:
        return None
    if not raw.media:
        return BuiltSample(raw.origin, record.source_id, plain.stored([]), [], "[]", "{}")
    [(source_name, content)], [place] = raw.media.items(), plain.places
    header = _read_header(source_name, content)
    if place.kind != header.kind or not (place.name == source_name or raw.has_bare_medium):
        return None
    name = FIRST_NAMES[header.kind]
    medium = BuiltMedium(name, source_name, content, header, content_hash(content))
    media_table = f"[{_table_row(medium)}]"
    return BuiltSample(raw.origin, record.source_id, plain.stored([name]), [medium], media_table, "{}")


FIRST_NAMES = {"image": "image_0", "video": "video_0"}


def _name_with_care(raw: RawSample, headers: dict[str, HeaderFacts]) -> tuple[StoredTexts, list[BuiltMedium]]:
    """The texts and the media back to back, in the order of their names. Raises RejectSample."""
    kinds = {name: header.kind for name, header in headers.items()}
    texts, named = name_media(raw.record, kinds, match_single=raw.has_bare_medium)
    placed = []
    offset = 0
    for medium in named:
        content, header = raw.media[medium.source_name], headers[medium.source_name]
        placed.append(
            BuiltMedium(
                name=medium.name,
                source_name=medium.source_name,
                content=content,
                header=header,
                xxh3_128=content_hash(content),
                offset=offset,
                referenced=medium.referenced,
            )
        )
        offset += len(content)
    return texts, placed


def _table_row(medium: BuiltMedium) -> str:
    """The canonical text of ``facts.as_row()``; that of an image is put together here, in a fifth of the time."""
    header = medium.header
    if header.kind != "image":
        return json_text.dumps(medium.facts.as_row())
    size = len(medium.content)
    return image_row(medium.name, header.format, medium.offset, size, medium.xxh3_128, header.width, header.height)


def image_row(name: str, image_format: str, offset: int, size: int, xxh3_128: str, width: int, height: int) -> str:
    """The text of the row of an image in ``media_table``."""
    return (
        f'{{"name": "{name}", "kind": "image", "format": "{image_format}", "offset": {offset}, '
        f'"size": {size}, "xxh3_128": "{xxh3_128}", "width": {width}, "height": {height}}}'
    )


def media_hash(media: list[BuiltMedium]) -> str | None:
    """The xxh3_128 over the ordered hashes of the media; None without media."""
    return joined_hash([medium.xxh3_128 for medium in media]) if media else None
