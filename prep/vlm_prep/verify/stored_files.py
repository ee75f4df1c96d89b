"""The files of a part or a mix against what their record says: there, of that size, of that content, of that schema."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.layout import StoredFile
from vlm_prep.verify.findings import DAMAGED, MISSING, TRUNCATED, UNREADABLE, WRONG_SCHEMA, Finding


def check_stored(folder: Path, file: StoredFile) -> Iterator[Finding]:
    """Is a file as part.json recorded it?"""
    path = folder / file.name
    if not path.is_file():
        yield Finding(problem=MISSING, path=str(path), detail="part.json records it")
        return
    size, found = path.stat().st_size, hash_of(path)
    if size != file.bytes:
        detail = f"{size:,} bytes, part.json says {file.bytes:,}"
        problem = TRUNCATED if size < file.bytes else DAMAGED
        yield Finding(problem=problem, path=str(path), detail=detail, found_xxh3_128=found)
    elif found != file.xxh3_128:
        detail = f"content hash {found}, part.json says {file.xxh3_128}"
        yield Finding(problem=DAMAGED, path=str(path), detail=detail, found_xxh3_128=found)


def check_pinned(path: Path, xxh3_128: str, *, problem: str) -> Iterator[Finding]:
    """Is a file the one that a manifest pins?"""
    if not path.is_file():
        yield Finding(problem=MISSING, path=str(path), detail="the mix pins it")
    elif (found := hash_of(path)) != xxh3_128:
        detail = f"content hash {found}, the mix pins {xxh3_128}"
        yield Finding(problem=problem, path=str(path), detail=detail, found_xxh3_128=found)


def check_schema(path: Path, schema: pa.Schema) -> Iterator[Finding]:
    """Is a Parquet file of this schema? A file that is not there is no matter of schemas."""
    if not path.is_file():
        return
    try:
        found = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        yield Finding(problem=UNREADABLE, path=str(path), detail=f"no Parquet file: {first_line(error)}")
        return
    if not found.equals(schema):
        yield Finding(problem=WRONG_SCHEMA, path=str(path), detail=_difference(found, schema))


def hash_of(path: Path) -> str:
    """The content hash of a file. Raises StorageError when the storage fails."""
    try:
        return file_hash(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, for a finding's detail."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    there = {field.name: str(field.type) for field in found}
    wanted = {field.name: str(field.type) for field in expected}
    names = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    told = [f"{name} is {there.get(name, 'missing')}, expected {wanted.get(name, 'no such column')}" for name in names]
    return "; ".join(told) or "the columns stand in another order"
