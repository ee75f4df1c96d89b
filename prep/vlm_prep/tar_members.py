"""The regular files of a tar that lies in memory: names, offsets and sizes, without copying a payload.

Reads what tar programs write: v7, ustar (with prefix), GNU (long names, base-256 numbers) and PAX (path and size).
Layout: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
Python's tarfile is the reference that the tests compare with; it takes four times as long.
"""

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from vlm_catalogs.errors import DataError

BLOCK = 512
MAX_EXTENSION_BYTES = 1 << 20
"""More than any name needs; a larger extension header is damage or an attack."""

REGULAR_TYPES = frozenset((0, ord("0"), ord("7")))  # of v7, of ustar, contiguous
TYPES_WITHOUT_PAYLOAD = frozenset(b"123456")  # links, devices, folders, pipes: their size field counts nothing
GNU_LONG_NAME, GNU_LONG_LINK, GNU_SPARSE = b"LKS"
PAX_NEXT, PAX_NEXT_SOLARIS, PAX_GLOBAL = b"xXg"
EXTENSION_TYPES = frozenset((GNU_LONG_NAME, GNU_LONG_LINK, PAX_NEXT, PAX_NEXT_SOLARIS, PAX_GLOBAL))

ORDINARY = re.compile(
    rb"(?=([^\0]{1,99})\0).{124}(?P<size>[0-7]{11})[\0 ].{12}(?P<checksum>[0-7]{6})\0 0.{188}\0", re.DOTALL
)
"""The header of a regular file with a short name, an octal size and no prefix: of nearly every member."""
CHECKSUM_AS_BLANKS = 8 * ord(" ") - ord(" ")
"""What the sum of a header gains where the NUL and the blank after its checksum's digits count as all blanks."""


class TarMember(NamedTuple):
    """One regular file: its payload is ``buffer[offset : offset + size]``."""

    name: str
    """As it stands in the tar; bytes that are not UTF-8 appear as ``\\xNN``, so that JSON and Parquet can hold it."""
    offset: int
    size: int


def read_members(buffer: memoryview, *, tar: str = "tar") -> Iterator[TarMember]:
    """The regular files of the tar in ``buffer``, in order; ``tar`` names it in messages.

    Folders, links and devices are passed over. A missing end-of-archive mark, or padding cut short after the last whole
    payload, is fine. Raises DataError, naming the byte offset, for a header or payload that is cut short, a wrong
    checksum, a size that is no number, and for sparse files (whose payload is not the file).
    """
    return _TarReader(buffer, tar).members()


class _TarReader:
    """A cursor over the headers of one tar, with what extension headers said about members to come."""

    def __init__(self, buffer: memoryview, tar: str) -> None:
        self._buffer = buffer
        self._tar = tar
        self._position = 0
        self._global: dict[str, bytes] = {}
        self._next: dict[str, bytes] = {}

    def members(self) -> Iterator[TarMember]:
        yield from self._ordinary_members()
        while header := self._next_header():
            kind = header[156]
            if kind in EXTENSION_TYPES:
                self._read_extension(header, kind)
                continue
            member = self._member(header, kind)
            self._skip(member.size)
            if kind in REGULAR_TYPES and not (kind == 0 and member.name.endswith("/")):  # v7 folders end in a slash
                yield member
            yield from self._ordinary_members()

    def _ordinary_members(self) -> Iterator[TarMember]:
        """The members from the cursor on, up to a header that needs more care: its type, its name or its numbers."""
        buffer, position = self._buffer, self._position
        while not self._global and (found := ORDINARY.match(buffer, position)):
            name, digits, checksum = found.groups()
            header = buffer[position : position + BLOCK].tobytes()
            size = int(digits, 8)
            total = _byte_sum(header) - _byte_sum(checksum) + CHECKSUM_AS_BLANKS
            if total != int(checksum, 8) or position + BLOCK + size > len(buffer):
                break
            yield TarMember(name.decode("utf-8", "backslashreplace"), position + BLOCK, size)
            position += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        self._position = position

    def _next_header(self) -> bytes:
        """The header block at the cursor, its checksum right; empty at the end of the archive."""
        header = self._buffer[self._position : self._position + BLOCK].tobytes()
        if not (header and header[0]) and not header.strip(b"\0"):
            if self._next:
                self._fail("the tar ends after an extension header, before its member")
            return b""
        if len(header) < BLOCK:
            self._fail(f"a header is cut short ({len(header)} of {BLOCK} bytes)")
        if not _checksum_is_right(header):
            self._fail("this is no tar header, or a damaged one (wrong checksum)")
        return header

    def _member(self, header: bytes, kind: int) -> TarMember:
        """What the header at the cursor describes, with what came before it in extension headers."""
        fields: dict[str, bytes] = {}
        if self._global or self._next:
            fields, self._next = {**self._global, **self._next}, {}
        if kind == GNU_SPARSE or (fields and any(keyword.startswith("GNU.sparse.") for keyword in fields)):
            self._fail("a sparse file; pack the tar again without --sparse")
        name = (fields["path"] if "path" in fields else _header_name(header)).decode("utf-8", "backslashreplace")
        size = 0 if kind in TYPES_WITHOUT_PAYLOAD else self._size(header, fields)
        if self._position + BLOCK + size > len(self._buffer):
            self._fail_presence(size, f"member {name}")
        return TarMember(name, self._position + BLOCK, size)

    def _read_extension(self, header: bytes, kind: int) -> None:
        size = self._size(header, {})
        if size > MAX_EXTENSION_BYTES:
            self._fail(f"an extension header of {size:,} bytes")
        if self._position + BLOCK + size > len(self._buffer):
            self._fail_presence(size, "an extension header")
        content = bytes(self._buffer[self._position + BLOCK :][:size])
        if kind == GNU_LONG_NAME:
            self._next["path"] = content.partition(b"\0")[0]
        elif kind != GNU_LONG_LINK:
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
    unsigned = _byte_sum(header) - sum(header[148:156]) + 8 * ord(" ")
    return stated == unsigned or stated == unsigned - 256 * sum(byte >> 7 for byte in header[:148] + header[156:])


def _byte_sum(header: bytes) -> int:
    """The sum of the bytes of one block: Adler-32's low half is 1 + that sum, modulo a prime over 512 * 127."""
    return (zlib.adler32(header) & 0xFFFF) - 1 if header.isascii() else sum(header)


def _header_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU tars ("ustar  ") keep times where POSIX has the prefix
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name
