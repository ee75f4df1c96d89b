"""i4: tars per data key whose members belong together by name, not by place."""

import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby, repeat
from pathlib import Path
from typing import NamedTuple, TypeVar

from vlm_catalogs import json_text
from vlm_catalogs.source import I4Source
from vlm_prep.content_ids import map_file
from vlm_prep.conversation import Record, Rejected, RejectSample, read_plain_record, read_record
from vlm_prep.parts import PartInput
from vlm_prep.plain_run import PlainRun
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.readers.i4_runs import Pairs, read_run
from vlm_prep.reasons import (
    DUPLICATE_MEMBER,
    MEDIA_NAME_COLLISION,
    MISSING_TEXT,
    NOT_A_FILE,
    SAMPLE_TOO_LARGE,
    UNREADABLE_JSON,
    UNREADABLE_PICKLE,
    UNSAFE_PICKLE,
)
from vlm_prep.safe_pickle import UnsafePickle, is_pickle, load_media_dict
from vlm_prep.tar_members import TarMember, read_member_table


class Found(NamedTuple):
    """A member and the tar that it stands in."""

    tar: PartInput
    content: memoryview
    member: TarMember

    @property
    def payload(self) -> memoryview:
        """The member's bytes, not loaded until they are used."""
        return self.content[self.member.offset : self.member.offset + self.member.size]


Members = dict[str, list[Found]]
"""Sample name -> members of that name in one tar, in order."""


Pair = TypeVar("Pair")


def read_part(source: I4Source, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of some data_list entries: in the order of the first text tar, then what has no text.

    Raises DataError for a tar that is cut short or damaged, with its path and byte offset.
    """
    return _read_entries(source, inputs, limits, _read_pairs)


def read_part_in_runs(
    source: I4Source, inputs: Sequence[PartInput], limits: Limits
) -> Iterator[PlainRun | RawSample | RejectedSample]:
    """As ``read_part``, but plain samples that follow each other come together."""
    return _read_entries(source, inputs, limits, _read_pairs_in_runs)


def _read_entries(
    source: I4Source,
    inputs: Sequence[PartInput],
    limits: Limits,
    read_pairs: Callable[[Pairs, Limits], Iterator[Pair]],
) -> Iterator[Pair | RawSample | RejectedSample]:
    for entry, tars in groupby(inputs, key=lambda part_input: part_input.entry):
        yield from _read_entry(source, entry, list(tars), limits, read_pairs)


def _read_entry(
    source: I4Source,
    entry: str,
    tars: list[PartInput],
    limits: Limits,
    read_pairs: Callable[[Pairs, Limits], Iterator[Pair]],
) -> Iterator[Pair | RawSample | RejectedSample]:
    contents = {tar.key: _TarContent(tar) for tar in tars}
    names = _common_names(contents.values())
    if names is None:
        found = {key: content.found() for key, content in contents.items()}
        yield from _read_by_name(source, entry, found, limits)
        return
    texts = [contents[key] for key in source.text_keys]
    media = [contents[key] for key in source.media_keys if key in contents]
    prefix = entry.removesuffix(".tar") + "/"
    sample_ids = [prefix + name for name in names]
    if len(texts) == len(media) == 1:
        sides = [(side.tar, side.content, side.members) for side in (*texts, *media)]
        yield from read_pairs(Pairs(sample_ids, *sides[0], *sides[1]), limits)
        return
    of_texts, of_media = (_side_by_side([content.found() for content in side]) for side in (texts, media))
    for sample_id, of_text, of_medium in zip(sample_ids, of_texts, of_media, strict=False):
        yield _read_sample(sample_id, of_text, of_medium, limits)


class _TarContent:
    """A tar in memory and the table of its members."""

    def __init__(self, tar: PartInput) -> None:
        self.tar = tar
        self.content = map_file(Path(tar.path))
        self.members = read_member_table(self.content, tar=tar.path)

    def found(self) -> list[Found]:
        """The members one by one."""
        return list(map(Found, repeat(self.tar), repeat(self.content), map(TarMember, *self.members)))


def _read_pairs(pairs: Pairs, limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of an ordinary entry of one text tar and one media tar."""
    return (_read_pair(pairs, number, limits) for number in range(len(pairs.sample_ids)))


def _read_pairs_in_runs(pairs: Pairs, limits: Limits) -> Iterator[PlainRun | RawSample | RejectedSample]:
    """The same, plain ones together."""
    number = 0
    while number < len(pairs.sample_ids):
        run = read_run(pairs, number, max_sample_bytes=limits.max_sample_bytes)
        yield run or _read_pair(pairs, number, limits)
        number += len(run) if run else 1


def _read_pair(pairs: Pairs, number: int, limits: Limits) -> RawSample | RejectedSample:
    of_text = Found(pairs.text_tar, pairs.text_content, pairs.texts.member(number))
    of_medium = Found(pairs.media_tar, pairs.media_content, pairs.media.member(number))
    return _read_sample(pairs.sample_ids[number], (of_text,), (of_medium,), limits)


def _common_names(tars: Iterable[_TarContent]) -> list[str] | None:
    """The sample names of an ordinary entry: each once, in the same order in every tar. None for any other entry."""
    tars = list(tars)
    if any(min(tar.members.sizes, default=0) < 0 for tar in tars):  # a link or the like
        return None
    first, *others = [list(map(_stem, tar.members.names)) for tar in tars]
    is_ordinary = (
        all(other == first for other in others) and len(set(first)) == len(first) and "/" not in "".join(first)
    )
    return first if is_ordinary else None


def _side_by_side(tars: list[list[Found]]) -> Iterable[tuple[Found, ...]]:
    """The members of each sample of an ordinary entry."""
    return zip(*tars, strict=True) if tars else repeat(())


def _read_by_name(
    source: I4Source, entry: str, found: Mapping[str, list[Found]], limits: Limits
) -> Iterator[RawSample | RejectedSample]:
    """The samples of any entry: in the order of the first text tar, then what has no text."""
    names = _sample_names(found.values())
    by_key = {key: _by_sample(members, names) for key, members in found.items()}
    texts = [by_key[key] for key in source.text_keys]
    media = {key: by_key[key] for key in source.media_keys if key in by_key}
    displaced = _out_of_order({key: [names[one.member.name] for one in members] for key, members in found.items()})
    repeated = {name for members in by_key.values() for name, found in members.items() if len(found) > 1}
    for name in dict.fromkeys(name for members in by_key.values() for name in members):
        sample_id = f"{entry.removesuffix('.tar')}/{name}"
        first_texts = [members[name][0] if name in members else None for members in texts]
        raw = _read_sample(sample_id, first_texts, _media_of(media, name), limits)
        yield raw if name not in displaced else replace(raw, origin=replace(raw.origin, out_of_order=True))
        if name in repeated:
            second = [
                found for key in by_key for found in _second(by_key[key].get(name, []), is_text=key in source.text_keys)
            ]
            for number, duplicate in zip(_free_numbers(name, by_key.values()), second, strict=False):
                yield _duplicate(f"{sample_id}~{number}", duplicate)


def _out_of_order(names: Mapping[str, list[str]]) -> set[str]:
    """The samples with a member that stands, in another tar, after one whose sample comes later in the first tar.

    ``names``: data key -> the sample of each member in order. Such members are matched by name here; loaders that read
    tars in lockstep pair them wrongly.
    """
    first, *others = names.values()
    places = {name: place for place, name in enumerate(dict.fromkeys(first))}
    displaced = set()
    for other in others:
        if other == first:
            continue
        furthest = -1
        for name in other:
            place = places.get(name, furthest)
            if place < furthest:
                displaced.add(name)
            furthest = max(furthest, place)
    return displaced


def _free_numbers(name: str, members: Iterable[Members]) -> Iterator[int]:
    """2, 3, ... for second occurrences, without those whose ``<name>~<number>`` is a sample of its own."""
    return (number for number in count(2) if not any(f"{name}~{number}" in of_key for of_key in members))


def _sample_names(tars: Collection[list[Found]]) -> Mapping[str, str]:
    """Member name -> sample name: the file name up to its last dot.

    Where a tar has files of one name in several folders, all names of the entry keep their folders, so that no two
    samples merge.
    """
    members = {found.member.name for tar in tars for found in tar}
    stems = {name: _stem(name) for name in members}
    if "/" not in "".join(stems.values()):
        return stems
    is_ambiguous = any(
        max(Counter(posixpath.basename(stem) for stem in {stems[f.member.name] for f in tar}).values(), default=0) > 1
        for tar in tars
    )
    return stems if is_ambiguous else {name: posixpath.basename(stem) for name, stem in stems.items()}


def _stem(name: str) -> str:
    """The name of a member without its last suffix, its folders kept."""
    if "/" not in name and not name.startswith("."):
        return name.rpartition(".")[0] or name
    return posixpath.splitext(posixpath.normpath(name).lstrip("/"))[0]


def _by_sample(members: list[Found], names: Mapping[str, str]) -> Members:
    by_sample: Members = {}
    for found in members:
        by_sample.setdefault(names[found.member.name], []).append(found)
    return by_sample


def _media_of(media: Mapping[str, Members], name: str) -> list[Found]:
    """The media members of a sample over all media keys, without second occurrences."""
    return [found for members in media.values() for found in _first_of_each(members.get(name, []))]


def _first_of_each(members: list[Found]) -> list[Found]:
    if len(members) < 2:
        return members
    return list({found.member.name: found for found in reversed(members)}.values())[::-1]


def _read_sample(
    sample_id: str, texts: Sequence[Found | None], media: Sequence[Found], limits: Limits
) -> RawSample | RejectedSample:
    """The sample of one text for each text key, None where a key lacks it, and its media."""
    present = [found for found in texts if found is not None]
    first = present[0] if present else media[0]
    origin = Origin(sample_id, first.tar.name, first.member.name, first.member.offset)
    source_id = None
    try:
        _check_size([*present, *media], limits)
        if len(present) < len(texts):
            raise RejectSample(MISSING_TEXT, f"{len(texts) - len(present)} of {len(texts)} text keys lack it")
        record = _read_texts(present)
        source_id = record.source_id
        contents, is_bare = _media_dict(media)
    except RejectSample as door:
        return RejectedSample(origin=origin, rejected=door.rejected, source_id=source_id)
    return RawSample(origin, record, contents, is_bare)


def _check_size(members: list[Found], limits: Limits) -> None:
    for found in members:
        if found.member.size < 0:
            raise RejectSample(NOT_A_FILE, f"{found.tar.name}: {found.member.name} is {found.member.other}")
    size = sum([found.member.size for found in members])
    if size > limits.max_sample_bytes:
        raise RejectSample(SAMPLE_TOO_LARGE, f"{size:,} bytes, max_sample_bytes is {limits.max_sample_bytes:,}")


def _read_texts(texts: list[Found]) -> Record:
    """The record of a sample's texts. Raises RejectSample when one cannot be read."""
    if len(texts) == 1 and (record := read_plain_record(texts[0].payload)):
        return record
    try:
        values = [json_text.loads(text.payload) for text in texts]
    except ValueError as error:
        raise RejectSample(UNREADABLE_JSON, str(error)) from error
    return read_record(values)


def _media_dict(members: Sequence[Found]) -> tuple[Mapping[str, bytes | memoryview], bool]:
    """Media name -> encoded file, over all members; and whether a member is a bare medium. Raises RejectSample."""
    if len(members) == 1:
        return _member_media(members[0])
    contents: dict[str, bytes | memoryview] = {}
    has_bare = False
    for found in members:
        media, is_bare = _member_media(found)
        has_bare |= is_bare
        for name, content in media.items():
            if name in contents:
                raise RejectSample(MEDIA_NAME_COLLISION, f"{name!r} stands in {found.tar.name} and before")
            contents[name] = content
    return contents, has_bare


def _member_media(found: Found) -> tuple[Mapping[str, bytes | memoryview], bool]:
    name = found.member.name
    if not is_pickle(name):
        return {name.rpartition("/")[2]: found.payload}, True
    try:
        return load_media_dict(found.payload), False
    except UnsafePickle as error:
        raise RejectSample(UNSAFE_PICKLE, f"{found.tar.name}: {name}: {error}") from error
    except ValueError as error:
        raise RejectSample(UNREADABLE_PICKLE, f"{found.tar.name}: {name}: {error}") from error


def _second(members: list[Found], *, is_text: bool) -> list[Found]:
    """Members that a sample does not use: a second text, or a medium whose member name stands in the tar before."""
    kept = members[:1] if is_text else _first_of_each(members)
    return [found for found in members if not any(found is first for first in kept)]


def _duplicate(sample_id: str, found: Found) -> RejectedSample:
    """The second occurrence of a member, under an id of its own: ``<sample_id>~2``."""
    origin = Origin(
        sample_id=sample_id, source_uri=found.tar.name, member=found.member.name, byte_offset=found.member.offset
    )
    rejected = Rejected(reason=DUPLICATE_MEMBER, detail=f"{found.member.name} stands in {found.tar.name} before")
    return RejectedSample(origin=origin, rejected=rejected)
