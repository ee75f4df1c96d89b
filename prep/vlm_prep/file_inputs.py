"""The row ranges of JSONL files and JSON arrays that parts are made of."""

import codecs
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.source import FileSource
from vlm_prep.compressed import advice_for, compression_of
from vlm_prep.content_ids import map_file
from vlm_prep.parts import ARRAY_PART_ROWS, JSONL_PART_BYTES, PartInput, PlannedPart, plan_part
from vlm_prep.source_format import source_root

COUNT_BYTES = 1 << 24


def plan_json(source: FileSource, files: Sequence[Path], file_format: str) -> list[PlannedPart]:
    """The parts of JSONL files and JSON arrays, in order. Raises DataError or StorageError."""
    ranges = jsonl_ranges if file_format == "jsonl" else array_ranges
    return [plan_part([part_input]) for path in files for part_input in _inputs(source, path, ranges(path))]


def _inputs(source: FileSource, path: Path, ranges: Iterator[tuple[int, int, int]]) -> Iterator[PartInput]:
    content = map_file(path)
    _check_encoding(bytes(content[:6]), path)
    name = path.relative_to(source_root(source)).as_posix()
    for begin, end, first_row in ranges:
        yield PartInput(
            name=name,
            path=str(path),
            bytes=end - begin,
            content_id=content_hash(content[begin:end]),
            begin=begin,
            first_row=first_row,
        )


WIDE_TEXT: dict[tuple[bool, ...], str] = {
    (True, False, True, False): "UTF-16",
    (False, True, False, True): "UTF-16",
    (True, False, False, False): "UTF-32",
    (False, False, False, True): "UTF-32",
}
"""Which of the first four bytes are not zero -> encoding: JSON begins with ASCII characters (RFC 4627, section 3)."""
BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"}


def _check_encoding(head: bytes, path: Path) -> None:
    """Raise DataError for a compressed file, or text of two or four bytes a character: no row of it could be read."""
    if (compression := compression_of(head)) is not None:
        raise DataError(f"{path}: {advice_for(compression, what='JSON file')}")
    is_set = tuple(byte != 0 for byte in head[:4])
    wide = BYTE_ORDER_MARKS.get(head[:4]) or WIDE_TEXT.get(is_set)
    if wide is None and head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        wide = "UTF-16"
    if wide is not None:
        raise DataError(f"{path}: the text is {wide}, expected UTF-8; convert it: iconv -f {wide} -t UTF-8")


def jsonl_ranges(path: Path, *, part_bytes: int = JSONL_PART_BYTES) -> Iterator[tuple[int, int, int]]:
    """The (begin, end, number of the first line) of ranges of about ``part_bytes`` that start after a newline."""
    content = map_file(path)
    begin = first_row = 0
    while begin < len(content):
        end = line_end(content, min(begin + part_bytes, len(content)) - 1)
        yield begin, end, first_row
        first_row += _count_lines(content[begin:end])
        begin = end


def line_end(content: memoryview, at: int) -> int:
    """The offset after the first newline from ``at`` on, or the end; ``content`` is a whole mapped file."""
    assert isinstance(content.obj, mmap.mmap)
    newline = content.obj.find(b"\n", at)
    return newline + 1 if newline >= 0 else len(content)


def _count_lines(content: memoryview) -> int:
    blocks = (content[at : at + COUNT_BYTES].tobytes() for at in range(0, len(content), COUNT_BYTES))
    return sum(block.count(b"\n") for block in blocks)


TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
"""Strings whole, so that brackets and commas inside them count for nothing."""


def array_ranges(path: Path, *, part_rows: int = ARRAY_PART_ROWS) -> Iterator[tuple[int, int, int]]:
    """The (begin, end, number of the first row) of ranges of ``part_rows`` elements of a JSON array."""
    first, begin, end = 0, -1, 0
    for row, (element_begin, end) in enumerate(elements(map_file(path), path=path)):
        begin = element_begin if begin < 0 else begin
        if row + 1 - first == part_rows:
            yield begin, end, first
            first, begin = row + 1, -1
    if begin >= 0:
        yield begin, end, first


def elements(content: memoryview, *, path: Path) -> Iterator[tuple[int, int]]:
    """The byte range of each element of the JSON array in ``content``; memory stays bounded.

    Raises DataError, with the offset, when the file is not one whole array.
    """
    depth, begin, end = 0, -1, 0
    for token in TOKEN.finditer(content):
        mark = content[token.start()]
        if depth == 0 and (mark != ord("[") or begin >= 0 or _has_text(content[: token.start()])):
            advice = "" if mark != ord("{") else "; a file of one object a line is JSONL: name it .jsonl"
            raise DataError(f"{path}: byte {token.start():,}: expected one JSON array of records{advice}")
        if mark in b"[{":
            depth += 1
            begin = token.end() if depth == 1 else begin
        elif mark in b"]}":
            depth -= 1
        is_end = (depth == 1 and mark == ord(",")) or (depth == 0 and mark == ord("]"))
        if is_end and content[begin : token.start()].tobytes().strip():
            yield begin, token.start()
        if is_end:
            begin = end = token.end()
    if depth != 0 or begin < 0:
        raise DataError(f"{path}: byte {len(content):,}: the JSON array ends here unfinished; is the file cut short?")
    if _has_text(content[end:]):
        raise DataError(f"{path}: byte {end:,}: something stands after the JSON array of records")


def _has_text(content: memoryview) -> bool:
    return bool(content.tobytes().removeprefix(json_text.BYTE_ORDER_MARK).strip())


def range_elements(content: memoryview) -> Iterator[tuple[int, int]]:
    """The byte range of each element in a run of elements with commas between, such as ``array_ranges`` gives."""
    depth = begin = 0
    for token in TOKEN.finditer(content):
        mark = content[token.start()]
        depth += (mark in b"[{") - (mark in b"]}")
        if depth == 0 and mark == ord(","):
            yield begin, token.start()
            begin = token.end()
    if content[begin:].tobytes().strip():
        yield begin, len(content)
