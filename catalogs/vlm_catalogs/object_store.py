"""Objects in S3 and what speaks its language: list, read, download, upload, put only where nothing is.

boto3 does the talking and retries what may pass (connections, 5xx, throttling), for one or two minutes in all. What it
cannot retry, a body that breaks off, is opened again from the byte that came last. Errors name bucket and key, never a
secret.
"""

import hashlib
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vlm_catalogs import json_text
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_catalogs.leftovers import temporary_name

SCHEME = "s3://"
ATTEMPTS = 15
"""Of one request, by boto3: with its growing pauses a server may be away for a minute."""
CONFLICTS = 6
"""Of one request with writers of the same key."""
REOPENINGS = 8
"""Of a body that breaks off, in a row without a single new byte."""
CHUNK_BYTES = 1 << 20
PIECE_BYTES = 64 << 20
"""Larger files are uploaded in pieces of this size, of which a store takes 10,000."""
HASH_NAME = "xxh3-128"
"""Of an object's metadata: the hash of what it holds."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Location:
    """A bucket and a key in it, or the beginning of keys."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> "S3Location":
        """The location of ``name`` under this one."""
        return S3Location(bucket=self.bucket, key=f"{self.key.rstrip('/')}/{name}".lstrip("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """What a listing says of an object."""

    key: str
    bytes: int
    etag: str


def is_s3(path: str) -> bool:
    """True for an address of the form s3://bucket/key."""
    return path.startswith(SCHEME)


def parse_s3(url: str) -> S3Location:
    """The location of an s3:// address. Raises ConfigError where it has no bucket."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not is_s3(url) or not bucket:
        raise ConfigError(f"{url!r}: expected s3://bucket/key")
    return S3Location(bucket=bucket, key=key.strip("/"))


@dataclass(slots=True)
class ObjectStore:
    """A client for one set of credentials; made when first used, so that it can cross to other processes."""

    credentials_path: str | None
    """JSON file whose keys go to the client as they are; None uses boto3's own chain."""
    _client: Any = field(default=None, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type["ObjectStore"], tuple[str | None]]:
        return (ObjectStore, (self.credentials_path,))

    def list(self, below: S3Location) -> Iterator[StoredObject]:
        """The objects whose keys begin with that of ``below``, in the order of their keys. Raises StorageError."""
        pages = self._connected().get_paginator("list_objects_v2").paginate(Bucket=below.bucket, Prefix=below.key)
        following = iter(pages)
        while (page := self._ask("list", below, lambda: next(following, None))) is not None:
            for one in page.get("Contents", []):
                yield StoredObject(key=one["Key"], bytes=one["Size"], etag=one["ETag"].strip('"'))

    def head(self, at: S3Location) -> StoredObject | None:
        """The object, None where there is none. Raises StorageError."""
        found = self._ask(
            "look at", at, lambda: self._connected().head_object(Bucket=at.bucket, Key=at.key), missing=None
        )
        return found and StoredObject(key=at.key, bytes=found["ContentLength"], etag=found["ETag"].strip('"'))

    def read(self, at: S3Location, *, etag: str | None = None) -> bytes:
        """All bytes of a small object. Raises DataError where there is none or it has changed, StorageError."""
        return b"".join(self._pieces(at, 0, None, etag))

    def read_range(self, at: S3Location, begin: int, end: int, *, etag: str | None = None) -> bytes:
        """The bytes [begin, end). Raises as ``read``."""
        return b"".join(self._pieces(at, begin, end, etag))

    def blocks(self, at: S3Location, *, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes [begin, end) block by block, ``end`` None: to the last. Raises as ``read``."""
        return self._pieces(at, begin, end, None)

    def download(self, at: S3Location, path: Path, *, etag: str | None = None, partials: Path | None = None) -> None:
        """Write the object to ``path``, by rename. Raises as ``read``, and OSError for the disk.

        ``partials``: where it stands until it is whole, under a name that ``remove_leftovers`` knows (beside ``path``).
        """
        partial = (partials or path.parent) / temporary_name("part")
        try:
            with partial.open("wb") as file:
                for piece in self._pieces(at, 0, None, etag):
                    file.write(piece)
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)

    def upload(self, path: Path, at: S3Location) -> None:
        """Store the file in one piece (5 GB at most); the store checks its MD5. Raises StorageError."""
        self._ask("write", at, lambda: self._put_file(path, at))

    def upload_if_absent(self, path: Path, at: S3Location) -> bool:
        """As ``upload`` where no object is; False, changing nothing, where there is one. Raises StorageError."""
        return self._ask("write", at, lambda: self._put_file(path, at, IfNoneMatch="*"), there=False) is not False

    def upload_hashed(self, path: Path, at: S3Location, *, content_hash: str) -> None:
        """As ``upload``, of any size, with a hash that ``stored_hash`` gives back. Raises StorageError."""
        self._ask("write", at, lambda: self._put_hashed(path, at, {HASH_NAME: content_hash}))

    def stored_hash(self, at: S3Location) -> str | None:
        """What ``upload_hashed`` was told; empty for other objects, None where there is none. Raises StorageError."""
        found = self._ask(
            "look at", at, lambda: self._connected().head_object(Bucket=at.bucket, Key=at.key), missing=None
        )
        return None if found is None else str(found.get("Metadata", {}).get(HASH_NAME, ""))

    def put(self, at: S3Location, content: bytes) -> None:
        """Store ``content``. Raises StorageError."""
        self._ask("write", at, lambda: self._put_content(content, at))

    def put_if_absent(self, at: S3Location, content: bytes) -> bool:
        """Store ``content`` where no object is; False, changing nothing, where there is one. Raises StorageError."""
        return self._ask("write", at, lambda: self._put_content(content, at, IfNoneMatch="*"), there=False) is not False

    def copy(self, at: S3Location, to: S3Location) -> None:
        """Copy an object (5 GB at most) within the store. Raises DataError where there is none, StorageError."""
        source = {"Bucket": at.bucket, "Key": at.key}
        self._ask("copy", at, lambda: self._connected().copy_object(Bucket=to.bucket, Key=to.key, CopySource=source))

    def delete(self, at: S3Location) -> None:
        """Remove the object where there is one. Raises StorageError."""
        self._ask("delete", at, lambda: self._connected().delete_object(Bucket=at.bucket, Key=at.key))

    def _pieces(self, at: S3Location, begin: int, end: int | None, etag: str | None) -> Iterator[bytes]:
        """The bytes in pieces; a body that breaks off is opened again where it did."""
        place, failures = begin, 0
        while True:
            wanted = f"bytes={place}-{'' if end is None else end - 1}"
            given = {} if place == 0 and end is None else {"Range": wanted}
            given |= {"IfMatch": etag} if etag else {}
            answer = self._ask("read", at, lambda given=given: self._connected().get_object(  # type: ignore[misc]
                Bucket=at.bucket, Key=at.key, **given
            ))  # fmt: skip
            etag = etag or answer["ETag"].strip('"')
            last = place + answer["ContentLength"]
            try:
                while piece := answer["Body"].read(CHUNK_BYTES):
                    place, failures = place + len(piece), 0
                    yield piece
                if place >= last:
                    return
                raise EOFError(f"the body ends after {place:,} of {last:,} bytes")
            except Exception as error:
                failures += 1
                if failures > REOPENINGS or not _may_pass(error):
                    raise _named("read", at, error, self.credentials_path) from error
                time.sleep(min(0.2 * 2**failures, 10.0))
            finally:
                answer["Body"].close()

    def _put_hashed(self, path: Path, at: S3Location, metadata: dict[str, str]) -> Any:
        if path.stat().st_size <= PIECE_BYTES:
            return self._put_file(path, at, Metadata=metadata)
        from boto3.s3.transfer import TransferConfig

        pieces = TransferConfig(multipart_threshold=PIECE_BYTES, multipart_chunksize=PIECE_BYTES, max_concurrency=4)
        with path.open("rb") as file:
            return self._connected().upload_fileobj(
                file, at.bucket, at.key, ExtraArgs={"Metadata": metadata}, Config=pieces
            )

    def _put_file(self, path: Path, at: S3Location, **given: Any) -> Any:
        with path.open("rb") as file:
            return self._put(file, md5_of(path), at, **given)

    def _put_content(self, content: bytes, at: S3Location, **given: str) -> Any:
        return self._put(content, hashlib.md5(content, usedforsecurity=False).hexdigest(), at, **given)

    def _put(self, body: Any, md5: str, at: S3Location, **given: Any) -> Any:
        """With its MD5: where the writer is killed before its body was sent, some servers store an empty object."""
        sent = b64encode(bytes.fromhex(md5)).decode()
        return self._connected().put_object(Bucket=at.bucket, Key=at.key, Body=body, ContentMD5=sent, **given)

    def _ask(self, verb: str, at: S3Location, work: Callable[[], Answer], **instead: Answer | None) -> Answer:
        """``work``; the answer is ``missing`` where there is no such object, ``there`` where there must be none."""
        for attempt in range(CONFLICTS):
            try:
                return work()
            except Exception as error:
                status = _status(error)
                if "missing" in instead and status == 404:
                    return instead["missing"]  # type: ignore[return-value]
                if "there" in instead and status == 412:
                    return instead["there"]  # type: ignore[return-value]
                if status != 409 or attempt == CONFLICTS - 1:
                    raise _named(verb, at, error, self.credentials_path) from error
                time.sleep(0.1 * 2**attempt)  # another is writing it at this moment: AWS says so, and to ask again
        raise AssertionError("unreachable")

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _connect(self.credentials_path)
        return self._client


def _connect(credentials_path: str | None) -> Any:
    import boto3
    from botocore.config import Config

    settings = {} if credentials_path is None else read_credentials(Path(credentials_path))
    profile = settings.pop("profile_name", None)
    config = Config(
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if _has_endpoint(settings) else {},
    )
    try:
        return boto3.session.Session(profile_name=profile).client("s3", config=config, **settings)
    except Exception as error:
        given = "boto3's own settings" if credentials_path is None else credentials_path
        raise ConfigError(f"{given}: no S3 client can be made: {type(error).__name__}") from error


def _has_endpoint(settings: Mapping[str, str]) -> bool:
    """Is the store not AWS? Others are addressed by path: a bucket is no host name of theirs."""
    return "endpoint_url" in settings or any(os.environ.get(f"AWS_ENDPOINT_URL{end}") for end in ("", "_S3"))


def md5_of(path: Path) -> str:
    """The MD5 of a file in hex: the ETag of most objects that were put in one piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def read_credentials(path: Path) -> dict[str, Any]:
    """The settings of a credentials file. Raises ConfigError, which never shows a value."""
    try:
        settings = json_text.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: credentials cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a JSON file of credentials") from error
    if not isinstance(settings, dict) or not all(isinstance(one, str) for one in settings.values()):
        raise ConfigError(f"{path}: expected one JSON object of texts, such as aws_access_key_id and endpoint_url")
    return dict(settings)


def _status(error: Exception) -> int | None:
    answer = getattr(error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _may_pass(error: Exception) -> bool:
    """True for what breaks a body off: connections and short bodies, not a full disk of ours."""
    from botocore.exceptions import HTTPClientError
    from botocore.exceptions import IncompleteReadError as ShortBody
    from urllib3.exceptions import HTTPError

    return isinstance(error, HTTPClientError | ShortBody | HTTPError | ConnectionError | TimeoutError | EOFError)


def _named(verb: str, at: S3Location, error: Exception, credentials_path: str | None) -> Exception:
    """The error in our words: where, what was tried, what to do; codes of the server, never its whole text."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    whose = "boto3's own credential chain" if credentials_path is None else credentials_path
    if isinstance(error, ClientError):
        code, status = str(error.response.get("Error", {}).get("Code", "unknown")), _status(error)
        if status == 412:
            return DataError(f"{at}: has changed since it was listed; run the command again")
        if code == "NoSuchBucket":
            return StorageError(f"{at}: there is no bucket {at.bucket!r} (credentials: {whose})")
        if status == 404:
            return DataError(f"{at}: there is no such object")
        if status == 416:
            return DataError(f"{at}: is shorter than it should be")
        if status in (401, 403):
            return StorageError(f"{at}: cannot {verb}: not allowed ({code}); the credentials are those of {whose}")
        return StorageError(f"{at}: cannot {verb}: {code} ({status}) after {ATTEMPTS} attempts")
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        advice = "; s3_credentials_path (of that [[mix.source]], where it is one) or --credentials names a file of them"
        missing = f"{at}: cannot {verb}: no complete credentials were found ({whose})"
        return StorageError(missing + (advice if credentials_path is None else ""))
    if isinstance(error, BotoCoreError) or _may_pass(error):
        return StorageError(f"{at}: cannot {verb}: {type(error).__name__} after {ATTEMPTS} attempts; is the server up?")
    if type(error).__module__.startswith("boto3."):
        return StorageError(f"{at}: cannot {verb}: {type(error).__name__}")
    return error
