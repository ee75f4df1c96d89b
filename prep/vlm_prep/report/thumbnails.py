"""Which media of a page's samples are pictured, and the small pictures: of bounded number and size."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.page.pictures import picture_url
from vlm_prep.one_sample import one_sample

MOST_OF_A_SAMPLE = 4
THREADS = 2


class Place(NamedTuple):
    """Where a sample stands in the shards; None for one that conversion rejected."""

    part: tuple[str, str]
    """Its dataset, and the name of the part."""
    shard: int | None
    index_in_shard: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictured:
    """A sample of a page whose first media are to be pictured."""

    place: int
    """On the page."""
    folder: Path
    shard: int
    index_in_shard: int
    num_media: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnails:
    """The small pictures of a page."""

    urls: list[str]
    """``data:`` URLs."""
    places: dict[tuple[int, int], int]
    """(place of the sample on the page, place of the medium in it) -> number in ``urls``."""
    num_unreadable: int
    """Media that could not be read or decoded."""


def plan_pictures(
    folders: Mapping[tuple[str, str], Path], places: Sequence[Place], num_media: Sequence[int], *, most: int
) -> list[Pictured]:
    """The samples to picture, in their order, until ``most`` media are taken; ``folders``: where each part lies."""
    planned, left = [], most
    for number, (place, media) in enumerate(zip(places, num_media, strict=True)):
        taken = min(media, MOST_OF_A_SAMPLE, left)
        if taken > 0 and place.shard is not None and place.index_in_shard is not None:
            stored = {"folder": folders[place.part], "shard": place.shard, "index_in_shard": place.index_in_shard}
            planned.append(Pictured(place=number, num_media=taken, **stored))  # type: ignore[arg-type]
            left -= taken
    return planned


def make_thumbnails(planned: Sequence[Pictured], copies: ObjectCopies, *, most_bytes: int) -> Thumbnails:
    """The thumbnails of ``planned``, as long as they fit into ``most_bytes``."""
    urls: list[str] = []
    places: dict[tuple[int, int], int] = {}
    num_unreadable = num_bytes = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for one, pictures in zip(planned, threads.map(lambda one: _urls(one, copies), planned), strict=True):
            for position, url in enumerate(pictures):
                if url is None:
                    num_unreadable += 1
                elif num_bytes + len(url) <= most_bytes:
                    num_bytes += len(url)
                    places[one.place, position] = len(urls)
                    urls.append(url)
    return Thumbnails(urls=urls, places=places, num_unreadable=num_unreadable)


def _urls(one: Pictured, copies: ObjectCopies) -> list[str | None]:
    """A URL for each medium; None for one that cannot be read: a page is no place to fail for a damaged shard."""
    try:
        with one_sample(one.folder, one.shard, one.index_in_shard, copies=copies) as sample:
            return [picture_url(facts, sample.medium(facts.name)) for facts in sample.media_table[: one.num_media]]
    except (DataError, StorageError):
        return [None] * one.num_media
