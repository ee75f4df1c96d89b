"""The members of a tar that lies in memory: names, offsets and sizes, without copying a payload.

Reads what tar programs write: v7, ustar (with prefix), GNU (long names, base-256 numbers) and PAX (path and size).
Layout: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
Python's tarfile is the reference that the tests compare with; it takes five times as long.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from vlm_catalogs.errors import DataError
from vlm_prep.compressed import advice_for, compression_of

BLOCK = 512
MAX_EXTENSION_BYTES = 1 << 20
"""More than any name needs; a larger extension header is damage or an attack."""

REGULAR_TYPES = frozenset((0, ord("0"), ord("7")))  # of v7, of ustar, contiguous
TYPES_WITHOUT_PAYLOAD = frozenset(b"123456")  # links, devices, folders, pipes: their size field counts nothing
FOLDER_TYPES = frozenset(b"5DV")  # folders, those of incremental GNU backups, and the label of an archive: no samples
HARD_LINK = ord("1")
TYPE_NAMES = {
    HARD_LINK: "a hard link to what is no file of the tar",
    ord("2"): "a symbolic link",
    ord("3"): "a device",
    ord("4"): "a device",
    ord("6"): "a pipe",
    ord("M"): "the rest of a file from another volume",
}
GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE = b"LKS"
PAX_NEXT, PAX_NEXT_SOLARIS, PAX_GLOBAL = b"xXg"
EXTENSION_TYPES = frozenset((GNU_LONG_NAME, GNU_LONG_LINK, PAX_NEXT, PAX_NEXT_SOLARIS, PAX_GLOBAL))

HEADERS_AT_ONCE = 4096
"""How many headers are checked together, field by field for all of them: a quarter of the time of one by one."""
NAME_BYTES = 100
SIZE_DIGITS = struct.Struct("124x11s")
"""The size in a header, without the byte that ends it."""
OCTAL_PLACES = 8 ** np.arange(5, -1, -1)


class TarMember(NamedTuple):
    """One regular file: its payload is ``buffer[offset : offset + size]``. Or what is no file: see ``other``."""

    name: str
    """As it stands in the tar; bytes that are not UTF-8 appear as ``\\xNN``, so that JSON and Parquet can hold it."""
    offset: int
    size: int
    """Of what is no regular file, its type in the tar, negative."""

    @property
    def other(self) -> str | None:
        """What the member is that is no regular file; None for a file."""
        return TYPE_NAMES.get(-self.size, f"a member of type {chr(-self.size)!r}") if self.size < 0 else None


def read_members(buffer: memoryview, *, tar: str = "tar") -> Iterator[TarMember]:
    """The members of the tar in ``buffer``, in order; ``tar`` names it in messages.

    A hard link is the file that it names. Symbolic links, devices and pipes come as what
    they are (``TarMember.other``); folders are passed over. A missing end-of-archive mark, or padding cut short after
    the last whole payload, is fine. Raises DataError, naming the byte offset, for a header or payload that is cut
    short, a wrong checksum, a size that is no number, for sparse files (whose payload is not the file), and for a file
    that is compressed.
    """
    for names, offsets, sizes in _TarReader(buffer, tar).runs():
        yield from map(TarMember, names, offsets, sizes)


class MemberTable(NamedTuple):
    """The members of a tar, or a run of them, field by field: a third of the time of an object for each."""

    names: list[str]
    offsets: list[int]
    sizes: list[int]

    def member(self, number: int) -> TarMember:
        """One of them."""
        return TarMember(self.names[number], self.offsets[number], self.sizes[number])


def read_member_table(buffer: memoryview, *, tar: str = "tar") -> MemberTable:
    """All that ``read_members`` gives. Raises DataError as it does."""
    table = MemberTable([], [], [])
    for names, offsets, sizes in _TarReader(buffer, tar).runs():
        table.names.extend(names)
        table.offsets.extend(offsets)
        table.sizes.extend(sizes)
    return table


class _TarReader:
    """A cursor over the headers of one tar, with what extension headers said about members to come."""

    def __init__(self, buffer: memoryview, tar: str) -> None:
        self._buffer = buffer
        self._tar = tar
        self._position = 0
        self._global: dict[str, bytes] = {}
        self._next: dict[str, bytes] = {}
        self._link = ""
        self._files: dict[str, TarMember] | None = None

    def runs(self) -> Iterator[MemberTable]:
        yield from self._ordinary_members()
        while header := self._next_header():
            kind = header[156]
            if kind in EXTENSION_TYPES:
                self._read_extension(header, kind)
                continue
            member = self._member(header, kind)
            self._skip(member.size)
            is_folder = kind in FOLDER_TYPES or (kind == 0 and member.name.endswith("/"))  # v7 folders end in a slash
            if kind == HARD_LINK:
                member = self._linked(member)
            elif kind not in REGULAR_TYPES:
                member = member._replace(size=-kind)
            if not is_folder:
                yield MemberTable([member.name], [member.offset], [member.size])
            yield from self._ordinary_members()

    def _ordinary_members(self) -> Iterator[MemberTable]:
        """The members from the cursor on, up to a header that needs more care: its type, its name or its numbers."""
        while not self._global:
            payloads, sizes = self._members_ahead()
            if not payloads:
                return
            starts = np.array(payloads) - BLOCK
            blocks = np.frombuffer(self._buffer[: starts[-1] + BLOCK], np.uint8).reshape(-1, BLOCK)
            headers = blocks[starts // BLOCK]
            num_ordinary = _num_ordinary(headers)
            if num_ordinary:
                self._position = payloads[num_ordinary - 1] - BLOCK
                self._skip(sizes[num_ordinary - 1])
                names = _header_names(headers[:num_ordinary])
                yield MemberTable(names, payloads[:num_ordinary], sizes[:num_ordinary])
            if num_ordinary < len(payloads):
                return

    def _members_ahead(self) -> tuple[list[int], list[int]]:
        """Where the next payloads would stand if all headers were ordinary, and their sizes; nothing is checked yet."""
        buffer, num_bytes, header = self._buffer, len(self._buffer), self._position
        payloads: list[int] = []
        sizes: list[int] = []
        size_digits = SIZE_DIGITS.unpack_from
        for _ in range(HEADERS_AT_ONCE):
            try:
                size = int(size_digits(buffer, header)[0], 8)
            except (ValueError, struct.error):  # no number, such as the zeros at the end; or the end itself
                break
            payload = header + BLOCK
            if size < 0 or payload + size > num_bytes:
                break
            payloads.append(payload)
            sizes.append(size)
            header = payload + (size + 511 & -BLOCK)
        return payloads, sizes

    def _next_header(self) -> bytes:
        """The header block at the cursor, its checksum right; empty at the end of the archive."""
        header = self._buffer[self._position : self._position + BLOCK].tobytes()
        if not (header and header[0]) and not header.strip(b"\0"):
            if self._next:
                self._fail("the tar ends after an extension header, before its member")
            return b""
        if len(header) < BLOCK:
            self._fail_if_compressed()
            self._fail(f"a header is cut short ({len(header)} of {BLOCK} bytes)")
        if not _checksum_is_right(header):
            self._fail_if_compressed()
            self._fail("this is no tar header, or a damaged one (wrong checksum)")
        return header

    def _member(self, header: bytes, kind: int) -> TarMember:
        """What the header at the cursor describes, with what came before it in extension headers."""
        fields: dict[str, bytes] = {}
        if self._global or self._next:
            fields, self._next = {**self._global, **self._next}, {}
        link = fields.get("linkpath", header[157:257].partition(b"\0")[0])
        self._link = link.decode("utf-8", "backslashreplace")
        if kind == GNU_SPARSE or (fields and any(keyword.startswith("GNU.sparse.") for keyword in fields)):
            self._fail("a sparse file; pack the tar again without --sparse")
        name = (fields["path"] if "path" in fields else _header_name(header)).decode("utf-8", "backslashreplace")
        size = 0 if kind in TYPES_WITHOUT_PAYLOAD else self._size(header, fields)
        if self._position + BLOCK + size > len(self._buffer):
            self._fail_presence(size, f"member {name}")
        return TarMember(name, self._position + BLOCK, size)

    def _linked(self, link: TarMember) -> TarMember:
        """A hard link with the payload of the file that it names: so tar programs store a second name of one file."""
        if self._files is None:
            self._files = {}  # of the second reader too, which need not follow links itself
            reader = _TarReader(self._buffer, self._tar)
            reader._files = self._files
            files = [TarMember(*fields) for table in reader.runs() for fields in zip(*table, strict=True)]
            self._files = {file.name: file for file in reversed(files) if file.other is None}
        file = self._files.get(self._link)
        return TarMember(link.name, file.offset, file.size) if file else link._replace(size=-HARD_LINK)

    def _read_extension(self, header: bytes, kind: int) -> None:
        size = self._size(header, {})
        if size > MAX_EXTENSION_BYTES:
            self._fail(f"an extension header of {size:,} bytes")
        if self._position + BLOCK + size > len(self._buffer):
            self._fail_presence(size, "an extension header")
        content = bytes(self._buffer[self._position + BLOCK :][:size])
        if kind == GNU_LONG_NAME:
            self._next["path"] = content.partition(b"\0")[0]
        elif kind == GNU_LONG_LINK:
            self._next["linkpath"] = content.partition(b"\0")[0]
        else:
            (self._global if kind == PAX_GLOBAL else self._next).update(self._pax_records(content))
        self._skip(size)

    def _pax_records(self, content: bytes) -> dict[str, bytes]:
        """Keyword -> value of records ``"%d %s=%s\\n" % (length, keyword, value)``; length counts the whole record."""
        records = {}
        while content.strip(b"\0"):
            digits, _, _ = content.partition(b" ")
            length = int(digits) if digits.isdigit() and len(digits) < 10 else 0
            keyword, equals, value = content[len(digits) + 1 : length - 1].partition(b"=")
            if not equals or content[length - 1 : length] != b"\n":
                self._fail("a damaged PAX header")
            records[keyword.decode("utf-8", "backslashreplace")] = value
            content = content[length:]
        return records

    def _size(self, header: bytes, fields: dict[str, bytes]) -> int:
        """The payload's bytes: PAX decimal, GNU base-256 (first bit set), or octal text."""
        field = header[124:136]
        try:
            if "size" in fields:
                size = int(fields["size"])
            elif field[0] & 0x80:
                size = int.from_bytes(field[1:]) if field[0] == 0x80 else -1  # 0xFF begins a negative number
            else:
                size = int(field.partition(b"\0")[0].strip() or b"0", 8)
        except ValueError:
            size = -1
        if size < 0:
            self._fail(f"the size of a member is no number: {fields.get('size', field)!r}")
        return size

    def _fail_if_compressed(self) -> None:
        compression = compression_of(bytes(self._buffer[:16])) if self._position == 0 else None
        if compression is not None:
            raise DataError(f"{self._tar}: {advice_for(compression, what='tar')}")

    def _fail_presence(self, size: int, what: str) -> NoReturn:
        present = len(self._buffer) - self._position - BLOCK
        self._fail(f"{what} is cut short ({present:,} of {size:,} bytes)")

    def _skip(self, size: int) -> None:
        self._position += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK

    def _fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self._tar}: byte {self._position:,}: {problem}")


def _checksum_is_right(header: bytes) -> bool:
    """Whether the header's sum, its checksum field taken as blanks, is the one it states; old tars sum signed bytes."""
    try:
        stated = int(header[148:156].partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return False
    unsigned = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    return stated == unsigned or stated == unsigned - 256 * sum(byte >> 7 for byte in header[:148] + header[156:])


def _num_ordinary(headers: NDArray[np.uint8]) -> int:
    """How many of the headers, from the first one on, are those of a regular file with a short name, an octal size, the
    right checksum and no prefix: of nearly every member."""
    sums = headers.sum(axis=1, dtype=np.int64) - headers[:, 148:156].sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    is_padding = headers[:, :NAME_BYTES] == 0
    is_ordinary = (
        ~is_padding[:, 0]
        & is_padding[:, -1]
        & (is_padding[:, :-1] <= is_padding[:, 1:]).all(axis=1)
        & _are_octal(headers[:, 124:135])
        & ((headers[:, 135] == 0) | (headers[:, 135] == ord(" ")))
        & _are_octal(headers[:, 148:154])
        & ((headers[:, 148:154] - np.uint8(ord("0"))) @ OCTAL_PLACES == sums)
        & (headers[:, 154] == 0)
        & (headers[:, 155] == ord(" "))
        & (headers[:, 156] == ord("0"))
        & (headers[:, 345] == 0)
    )
    return len(is_ordinary) if is_ordinary.all() else int(is_ordinary.argmin())


def _header_names(headers: NDArray[np.uint8]) -> list[str]:
    """The names in ordinary headers, decoded together; NUL stands in none of them."""
    names = headers[:, :NAME_BYTES].copy().view(f"S{NAME_BYTES}").ravel().tolist()
    return b"\0".join(names).decode("utf-8", "backslashreplace").split("\0")


def _are_octal(fields: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(((fields >= ord("0")) & (fields <= ord("7"))).all(axis=1))


def _header_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU tars ("ustar  ") keep times where POSIX has the prefix
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name
