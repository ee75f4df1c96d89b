"""Files that are compressed as a whole: how to tell, and what to do about them.

They are not read: parts are cut at offsets, in S3 too, and a compressed file has to be unpacked up to each of them.
"""

COMPRESSIONS = {
    "gzip": (b"\x1f\x8b", (".gz",), "gzip -dc"),
    "zstd": (b"\x28\xb5\x2f\xfd", (".zst", ".zstd"), "zstd -dc"),
    "bzip2": (b"BZh", (".bz2",), "bzip2 -dc"),
    "xz": (b"\xfd7zXZ\x00", (".xz",), "xz -dc"),
    "lz4": (b"\x04\x22\x4d\x18", (".lz4",), "lz4 -dc"),
    "zip": (b"PK\x03\x04", (".zip",), "unzip -p"),
}
"""Name -> what such a file begins with, its endings, and the command that unpacks it to stdout."""
SHORT_SUFFIXES = {".tgz": "gzip", ".tzst": "zstd", ".tbz": "bzip2", ".tbz2": "bzip2", ".txz": "xz"}
"""Endings of compressed tars."""


def compression_of(head: bytes) -> str | None:
    """How a file that begins with ``head`` is compressed; None for one that is not."""
    return next((name for name, (magic, _, _) in COMPRESSIONS.items() if head.startswith(magic)), None)


def unpacked_name(name: str) -> tuple[str, str] | None:
    """What a file of this name is called when it is unpacked, and how it is compressed; None for one that is not."""
    lower = name.lower()
    for suffix, compression in SHORT_SUFFIXES.items():
        if lower.endswith(suffix):
            return f"{name[: -len(suffix)]}.tar", compression
    for compression, (_, suffixes, _) in COMPRESSIONS.items():
        if ending := next(filter(lower.endswith, suffixes), None):
            return name[: -len(ending)], compression
    return None


def advice_for(compression: str, *, what: str) -> str:
    """What is wrong with a compressed file, and what to do."""
    command = COMPRESSIONS[compression][2]
    return f"this is compressed with {compression}, expected a plain {what}; unpack it: {command} OLD > NEW"
