"""Canonical names of media: ``image_0``, ``video_0``, ... by first reference, so that every source form reads alike."""

import re
from collections.abc import Iterator, Mapping, Sequence

from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_prep.conversation import Record, RejectSample
from vlm_prep.reasons import MEDIA_KIND_MISMATCH, MISSING_MEDIA
from vlm_prep.stored_texts import Message, Place, StoredTexts, stored_texts


@frozen_by_types
class NamedMedium:
    """A medium of the sample under its canonical name."""

    name: str
    source_name: str
    kind: str
    referenced: bool
    """Does any conversation use it?"""


def name_media(
    record: Record, kinds: Mapping[str, str], *, match_single: bool = False
) -> tuple[StoredTexts, list[NamedMedium]]:
    """The record's texts with canonical names in its items, and the media in the order in which they are stored.

    ``kinds`` gives each medium that the sample has its kind by bytes. ``match_single``: where there is one medium and
    one name for it, they belong together whatever the names (a bare i4 member has no name in the conversation).
    Raises RejectSample for a medium that is not there or is of the other kind.
    """
    places = record.places()
    source_names = [name for kind, name, _ in places if name is not None and kinds.get(name) == kind]
    if len(source_names) < len(places):
        aliases = _single_alias(places, kinds) if match_single else {}
        pools = _pools(record, kinds) if None in [place.name for place in places] else {}
        source_names = [_resolve(place, kinds, pools, aliases) for place in places]
    names = _canonical_names(source_names, kinds)
    media = [
        NamedMedium(name=name, source_name=source, kind=kinds[source], referenced=source in source_names)
        for source, name in names.items()
    ]
    return _named_texts(record, [names[source_name] for source_name in source_names]), media


def _named_texts(record: Record, names: list[str]) -> StoredTexts:
    """The texts with ``names`` at the record's places."""
    if record.plain is not None:
        return record.plain.stored(names)
    in_order = iter(names)
    return stored_texts([[_renamed(message, in_order) for message in part] for part in record.conversations])


def _single_alias(places: Sequence[Place], kinds: Mapping[str, str]) -> dict[str, str]:
    if len(kinds) != 1:
        return {}
    named = {place.name for place in places if place.name is not None}
    return {named.pop(): next(iter(kinds))} if len(named) == 1 else {}


def _pools(record: Record, kinds: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """Kind -> the media that items without a name take in turn."""
    return record.listed or {kind: _of_kind(kinds, kind) for kind in ("image", "video")}


def _of_kind(kinds: Mapping[str, str], kind: str) -> tuple[str, ...]:
    return tuple(sorted((name for name, found in kinds.items() if found == kind), key=natural_key))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``image_2`` before ``image_10``."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces]


def _resolve(
    place: Place, kinds: Mapping[str, str], pools: Mapping[str, tuple[str, ...]], aliases: Mapping[str, str]
) -> str:
    """The source name of the medium at ``place``."""
    if place.name is None:
        pool = pools.get(place.kind, ())
        assert place.position is not None
        if place.position > len(pool):
            raise RejectSample(MISSING_MEDIA, f"{place}: the sample has {len(pool)} of that kind")
        source_name = pool[place.position - 1]
    else:
        source_name = aliases.get(place.name, place.name)
    if source_name not in kinds:
        raise RejectSample(MISSING_MEDIA, f"{short_name(source_name)!r} is not among {_listed(kinds)}")
    if kinds[source_name] != place.kind:
        message = f"{short_name(source_name)!r} stands in {place.kind} items, its bytes are of a {kinds[source_name]}"
        raise RejectSample(MEDIA_KIND_MISMATCH, message)
    return source_name


def _canonical_names(used: list[str], kinds: Mapping[str, str]) -> dict[str, str]:
    """Source name -> canonical name: by first reference, then the unreferenced by their own names."""
    if len(kinds) == 1:
        return {source_name: f"{kind}_0" for source_name, kind in kinds.items()}
    counts = {"image": 0, "video": 0}
    names: dict[str, str] = {}
    for source_name in dict.fromkeys([*used, *sorted(kinds)]):
        kind = kinds[source_name]
        names[source_name] = f"{kind}_{counts[kind]}"
        counts[kind] += 1
    return names


def _renamed(message: Message, in_order: Iterator[str]) -> Message:
    """The message with the next names in the place of its media."""
    items = [
        {**item, kind: next(in_order)} if type(item.get(kind := item["type"])) is Place else item
        for item in message["content"]
    ]
    return {**message, "content": items}


def _listed(kinds: Mapping[str, str]) -> str:
    names = [short_name(name) for name in kinds]
    return "the sample's media (" + (", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "none") + ")"


def short_name(name: str) -> str:
    """A media name for tables and messages: a ``data:`` URL without its payload."""
    return name.partition(",")[0] + ",..." if name.startswith("data:") else name[:500]
