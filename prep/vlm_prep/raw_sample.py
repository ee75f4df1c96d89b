"""What readers hand to conversion: a sample as its source tells it, with its media, or the named door it leaves by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_prep.conversation import Record, Rejected

if TYPE_CHECKING:
    from vlm_catalogs.config.sections import MixSection


@frozen_by_types
class Origin:
    """Where a sample stands in its source."""

    sample_id: str
    source_uri: str
    """The tar or file, relative to the source's root."""
    member: str | None = None
    byte_offset: int | None = None
    """Where the sample's text begins in ``source_uri``."""
    out_of_order: bool = False
    """i4: do its members stand elsewhere in one tar than in another, or apart? Readers by place would mix them up."""


@frozen_by_types
class RawSample:
    """A sample whose conversations could be read; its media are still unchecked."""

    origin: Origin
    record: Record
    media: Mapping[str, bytes | memoryview] = field(default_factory=dict)
    """Name in the source -> encoded file."""
    has_bare_medium: bool = False
    """Did an i4 medium come as a bare member, so that its name in the conversation is unknown?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedSample:
    """A sample that a reader could not make whole."""

    origin: Origin
    rejected: Rejected
    source_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the TOML bounds in conversion."""

    max_sample_bytes: int
    """Never more than an MDS shard can hold."""
    fetch_media: bool = False
    """May media be fetched from http(s) URLs?"""
    fetch_private_hosts: tuple[str, ...] = ()
    """Hosts that they may come from although their addresses are not public."""

    @staticmethod
    def from_settings(mix: "MixSection") -> "Limits":
        """The limits of ``[mix]``."""
        return Limits(
            max_sample_bytes=min(mix.max_sample_bytes, MAX_STORABLE_BYTES),
            fetch_media=mix.fetch_media,
            fetch_private_hosts=mix.fetch_private_hosts,
        )


MAX_STORABLE_BYTES = (1 << 32) - (1 << 28)
"""Offsets in a shard are uint32; the rest is for what conversion adds to a sample's own bytes."""
