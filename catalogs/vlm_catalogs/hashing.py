"""Content hashes and order keys; all xxh3, stored as 32 hex characters or as an unsigned 64-bit integer."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import xxhash

READ_BYTES = 1 << 24


def content_hash(content: bytes | bytearray | memoryview) -> str:
    """The xxh3_128 of ``content`` as 32 hex characters."""
    return xxhash.xxh3_128_hexdigest(content)


def file_hash(path: Path) -> str:
    """The xxh3_128 of a file's bytes as 32 hex characters."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def joined_hash(values: Iterable[object]) -> str:
    """The xxh3_128 of several values, each written as its length and its text, so that no two lists read alike."""
    return content_hash(b"".join([_field(value) for value in values]))


def joined_hashes(values: Iterable[str]) -> list[str]:
    """``joined_hash([value])`` of every value."""
    hash_of = xxhash.xxh3_128_hexdigest
    return [hash_of(_LENGTH(len(text)) + text) for value in values for text in (_encoded(value),)]


def order_key(*values: object) -> int:
    """A stable unsigned 64-bit key for seeded choices, such as ``order_key(seed, epoch, dataset, sample_id)``."""
    return xxhash.xxh3_64_intdigest(b"".join(_field(value) for value in values))


def order_keys(prefix: Iterable[object], ids: Iterable[str]) -> list[int]:
    """``order_key(*prefix, id)`` of every id; the prefix is spelled once, which matters for millions of ids."""
    begin = b"".join(_field(value) for value in prefix)
    return [xxhash.xxh3_64_intdigest(begin + _field(name)) for name in ids]


def sample_key(dataset: str, sample_id: str) -> int:
    """The unsigned 64-bit key of (dataset, sample_id) in the index tables."""
    return order_key(dataset, sample_id)


def sample_keys(dataset: str) -> Callable[[str], int]:
    """``sample_key`` of a dataset's ids, its name spelled once."""
    begin = _field(dataset)
    return lambda sample_id: xxhash.xxh3_64_intdigest(begin + _field(sample_id))


def _field(value: object) -> bytes:
    text = _encoded(str(value))
    return _LENGTH(len(text)) + text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_LENGTH = struct.Struct("<I").pack
