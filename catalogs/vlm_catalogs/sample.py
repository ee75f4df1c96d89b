"""One converted sample: the seven MDS columns and the facts of its media."""

from dataclasses import dataclass, field
from typing import Any, Literal

from vlm_catalogs.frozen_by_types import frozen_by_types

MediaKind = Literal["image", "video"]

SHARD_FORMAT = 1
"""Raised only when the bytes that conversion writes change; a golden test holds it."""

MDS_COLUMNS: dict[str, str] = {
    "sample_id": "str",
    "dataset": "str",
    "messages": "json",
    "alternatives": "json",
    "media": "bytes",
    "media_table": "json",
    "meta": "json",
}
"""Column name -> standard MDS encoding, so that ``streaming`` alone reads the shards."""


@frozen_by_types
class MediaFacts:
    """What is known of one medium from its headers; a row of ``media_table``, which is in order of first reference."""

    name: str
    """``image_0``, ``video_0``, ...: the name that ``messages`` use."""
    kind: MediaKind
    format: str
    """Lower case, by bytes: jpeg, png, webp, gif, bmp, tiff, mp4, webm, ..."""
    offset: int
    """Where the encoded file begins in the ``media`` column, bytes."""
    size: int
    """Length of the encoded file, bytes."""
    xxh3_128: str
    width: int
    """Pixels, after EXIF orientation."""
    height: int
    duration: float | None = None
    """Seconds; videos only."""
    fps: float | None = None
    """Mean frames per second; videos only."""
    frames: int | None = None
    """Number of demuxed frames; videos only."""

    def as_row(self) -> dict[str, Any]:
        """The JSON object of ``media_table``, keys in the order of the fields; images carry no video keys."""
        names = IMAGE_FIELDS if self.kind == "image" else IMAGE_FIELDS + VIDEO_FIELDS
        return {name: getattr(self, name) for name in names}

    @staticmethod
    def from_row(row: dict[str, Any]) -> "MediaFacts":
        """The facts of one row of ``media_table``."""
        return MediaFacts(**row)


IMAGE_FIELDS = ("name", "kind", "format", "offset", "size", "xxh3_128", "width", "height")
VIDEO_FIELDS = ("duration", "fps", "frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sample as it stands in a shard.

    ``messages`` is a list of ``{"role": ..., "content": [items]}`` with items ``{"type": "text", "text": ...}``,
    ``{"type": "image", "image": name, ...options}`` and ``{"type": "video", "video": name, ...options}``; an assistant
    message may carry ``reasoning_content``. Content is always a list of items.
    """

    sample_id: str
    dataset: str
    messages: list[dict[str, Any]]
    alternatives: list[list[dict[str, Any]]] = field(default_factory=list)
    media: bytes | memoryview = b""
    """The encoded files back to back; a reader gives a slice of its memory map."""
    media_table: tuple[MediaFacts, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)

    def medium(self, name: str) -> memoryview:
        """The encoded bytes of one medium, without a copy. Raises KeyError for a name that is not in the table."""
        for facts in self.media_table:
            if facts.name == name:
                return memoryview(self.media)[facts.offset : facts.offset + facts.size]
        raise KeyError(name)

    def conversation(self, alternative: int) -> list[dict[str, Any]]:
        """The messages of one alternative: 0 is ``messages``, the rest stand in ``alternatives``."""
        return self.messages if alternative == 0 else self.alternatives[alternative - 1]
