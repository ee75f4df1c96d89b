"""Webdataset tars: ``<key>.json`` and its media ``<key>.<suffix>`` in one tar, named in items by ``wds_field``.

Keys are the names of the JSON members, so that dots in them merge no samples; a medium belongs to the longest key that
its name begins with. Parts are runs of whole tars.
"""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.source import FileSource
from vlm_prep.columns import renamed
from vlm_prep.content_ids import file_content_id, map_file
from vlm_prep.conversation import LOCATION_KEYS, MEDIA_TYPES, Record, Rejected, RejectSample, is_remote, read_record
from vlm_prep.media_facts import SNIFFED_BYTES, sniff_format
from vlm_prep.parts import PartInput, PlannedPart, plan_pieces
from vlm_prep.raw_sample import Limits, Origin, RawSample, RejectedSample
from vlm_prep.readers.file_rows import media_folder
from vlm_prep.readers.loose_media import load_media
from vlm_prep.reasons import (
    BAD_CONVERSATION,
    DUPLICATE_MEMBER,
    MISSING_TEXT,
    NOT_A_FILE,
    SAMPLE_TOO_LARGE,
    UNREADABLE_JSON,
)
from vlm_prep.source_format import source_root
from vlm_prep.tar_members import TarMember, read_members

JSON_SUFFIX = ".json"


def plan_parts(source: FileSource, files: Sequence[Path]) -> list[PlannedPart]:
    """The parts of tars. Raises StorageError."""
    return plan_pieces([_whole_tar(source, path) for path in files])


def _whole_tar(source: FileSource, path: Path) -> PartInput:
    size, content_id = file_content_id(path)
    name = path.relative_to(source_root(source)).as_posix()
    return PartInput(name=name, path=str(path), bytes=size, content_id=content_id)


def stated_samples(files: Sequence[Path]) -> int | None:
    """The sum of ``total_items`` in the meta.json beside the tars; None where one lacks it. Raises DataError."""
    total = 0
    for path in {file.parent: file.parent / "meta.json" for file in files}.values():
        try:
            fields = json_text.loads(path.read_bytes()) if path.is_file() else {}
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        number = fields.get("total_items") if isinstance(fields, dict) else None
        if not isinstance(number, int):
            return None
        total += number
    return total


def read_part(source: FileSource, inputs: Sequence[PartInput], limits: Limits) -> Iterator[RawSample | RejectedSample]:
    """The samples of tars in the order of their JSON, then what has none. Raises DataError for a damaged tar."""
    for tar in inputs:
        yield from _Tar(source, tar).read(limits)


class _Tar:
    """The members of one tar by sample."""

    def __init__(self, source: FileSource, tar: PartInput) -> None:
        self._source = source
        self._tar = tar
        self._content = map_file(Path(tar.path))
        self._first: dict[str, TarMember] = {}
        self._texts: dict[str, TarMember] = {}
        self._second: list[TarMember] = []
        for member in read_members(self._content, tar=tar.path):
            self._add(member)

    def _add(self, member: TarMember) -> None:
        """Note a member: the first of its name, and of texts (a.json, a.JSON) the first of its key."""
        is_text = member.name.lower().endswith(JSON_SUFFIX)
        key = member.name[: -len(JSON_SUFFIX)]
        if member.name in self._first or (is_text and key in self._texts):
            self._second.append(member)
            return
        self._first[member.name] = member
        if is_text:
            self._texts[key] = member

    def read(self, limits: Limits) -> Iterator[RawSample | RejectedSample]:
        """Every sample, then the members that belong to none, then those that stand twice."""
        owned: dict[str, list[TarMember]] = {}
        for member in self._first.values():
            owned.setdefault(self._key(member.name), []).append(member)
        for key, text in self._texts.items():
            yield self._read_sample(key, text, [member for member in owned[key] if member is not text], limits)
        for key in [key for key in owned if key not in self._texts]:
            member = owned[key][0]
            if member.other is None:
                yield self._reject(key, member, MISSING_TEXT, f"there is no {key}{JSON_SUFFIX}")
            else:
                yield self._reject(key, member, NOT_A_FILE, f"{member.name} is {member.other}")
        taken = set(owned)
        for member in self._second:
            key = self._key(member.name)
            own = next(name for number in count(2) if (name := f"{key}~{number}") not in taken)
            taken.add(own)
            detail = f"{member.name} stands in {self._tar.name} before"
            yield self._reject(own, member, DUPLICATE_MEMBER, detail)

    def _key(self, name: str) -> str:
        """The longest key that a member's name begins with; for a member without JSON, its name to the first dot."""
        key = name
        while key not in self._texts:
            shorter, dot, suffix = key.rpartition(".")
            if not dot or "/" in suffix:
                folder, _, file = name.rpartition("/")
                return posixpath.join(folder, file.partition(".")[0] or file)
            key = shorter
        return key

    def _read_sample(
        self, key: str, text: TarMember, others: list[TarMember], limits: Limits
    ) -> RawSample | RejectedSample:
        record = None
        try:
            _check_size([text], limits)
            record = self._read_record(text)
            found = {name: member for name in record.names() if (member := self._member(key, name))}
            used = {member.name for member in found.values()}
            unused = [member for member in others if member.name not in used]
            found |= {member.name[len(key) + 1 :]: member for member in unused if self._is_medium(member)}
            _check_size([text, *found.values()], limits)
            inline = [name for name in record.names() if name.startswith("data:") or is_remote(name)]
            folder = media_folder(self._source, self._tar)
            media = load_media(inline, folder, limits, max_bytes=limits.max_sample_bytes)
        except RejectSample as door:
            source_id = record.source_id if record else None
            return RejectedSample(origin=self._origin(key, text), rejected=door.rejected, source_id=source_id)
        unread = [member.name[len(key) + 1 :] for member in unused if not self._is_medium(member)]
        if unread:
            record = replace(record, meta={**record.meta, "unread_members": unread})
        contents = {name: self._payload(member) for name, member in found.items()}
        return RawSample(origin=self._origin(key, text), record=record, media={**contents, **media})

    def _read_record(self, text: TarMember) -> Record:
        try:
            value = json_text.loads(self._payload(text))
        except ValueError as error:
            raise RejectSample(UNREADABLE_JSON, str(error)) from error
        value = renamed(value, self._source.columns) if isinstance(value, dict) else value
        return read_record([_with_names(value)])

    def _member(self, key: str, name: str) -> TarMember | None:
        """The member that a sample calls ``name``: its own suffix, or the whole name of a file."""
        return self._first.get(f"{key}.{name}") or self._first.get(posixpath.join(posixpath.dirname(key), name))

    def _is_medium(self, member: TarMember) -> bool:
        """Is it one that can be read? A HEIF image beside those that a sample names is none."""
        try:
            return member.size > 0 and sniff_format(bytes(self._payload(member)[:SNIFFED_BYTES])) is not None
        except ValueError:
            return False

    def _payload(self, member: TarMember) -> memoryview:
        return self._content[member.offset : member.offset + member.size]

    def _origin(self, key: str, member: TarMember) -> Origin:
        return Origin(
            sample_id=f"{posixpath.splitext(self._tar.name)[0]}/{key}",
            source_uri=self._tar.name,
            member=member.name,
            byte_offset=member.offset,
        )

    def _reject(self, key: str, member: TarMember, reason: str, detail: str) -> RejectedSample:
        return RejectedSample(origin=self._origin(key, member), rejected=Rejected(reason=reason, detail=detail))


def _check_size(members: Sequence[TarMember], limits: Limits) -> None:
    for member in members:
        if member.other is not None:
            raise RejectSample(NOT_A_FILE, f"{member.name} is {member.other}")
    size = sum(member.size for member in members)
    if size > limits.max_sample_bytes:
        raise RejectSample(SAMPLE_TOO_LARGE, f"{size:,} bytes, max_sample_bytes is {limits.max_sample_bytes:,}")


def _with_names(value: Any) -> Any:
    """``value`` with the suffix that ``wds_field`` names as the medium of its item."""
    if isinstance(value, list):
        return [_with_names(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    kind = MEDIA_TYPES.get(str(value.get("type")))
    if "wds_field" not in value or kind is None:
        return {key: _with_names(entry) for key, entry in value.items()}
    field = value["wds_field"]
    if not isinstance(field, str) or not field:
        raise RejectSample(BAD_CONVERSATION, f"wds_field {str(field)[:60]!r}, expected the suffix of a member")
    others = {key: entry for key, entry in value.items() if key not in ("type", "wds_field", *LOCATION_KEYS[kind])}
    return {"type": kind, kind: field.removeprefix("."), **others}
