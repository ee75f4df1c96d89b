"""Media that rows name by an http(s) URL: fetched from public addresses, bounded in size and time, tried again."""

import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, SSLError

from vlm_catalogs.errors import StorageError
from vlm_prep.conversation import RejectSample
from vlm_prep.reasons import MISSING_MEDIA, REMOTE_MEDIA, SAMPLE_TOO_LARGE

ATTEMPTS = 5
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further one."""
TIMEOUT = urllib3.Timeout(connect=10, read=30)
MAX_SECONDS = 300.0
"""For one attempt, so that a server which sends a byte a second does not hold a build."""
MAX_REDIRECTS = 5
BLOCK = 1 << 16

REDIRECTS = (301, 302, 303, 307, 308)
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class _Failed(Exception):
    """The network or the server fails now, and may not in a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    url: str
    scheme: str
    host: str
    port: int
    request: str
    """Path and query."""
    netloc: str
    shown: str
    """The URL without its query, which may hold a signature."""


def fetch(url: str, *, max_bytes: int, private_hosts: Collection[str] = ()) -> bytes:
    """The bytes at ``url``, which are at most ``max_bytes``.

    Raises RejectSample for what is not there, is too large or lies at an address that is not public, StorageError when
    the network or the server still fails at the last attempt.
    """
    first = _target(url)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            return _followed(first, attempt, max_bytes, private_hosts)
        except _Failed as error:
            failure = error
    raise StorageError(f"{first.shown}: cannot be fetched: {failure} (tried {ATTEMPTS} times)")


def _followed(first: _Target, attempt: int, max_bytes: int, private_hosts: Collection[str]) -> bytes:
    deadline = time.monotonic() + MAX_SECONDS
    target = first
    for _ in range(MAX_REDIRECTS + 1):
        addresses = _addresses(target, private_hosts)
        with _pool(target, addresses[attempt % len(addresses)]) as pool:
            answer = _answer(pool, target)
            if isinstance(answer, str):
                target = _target(urljoin(target.url, answer))
                continue
            return _body(answer, target, max_bytes, deadline)
    raise RejectSample(MISSING_MEDIA, f"{first.shown}: more than {MAX_REDIRECTS} redirects")


def _target(url: str) -> _Target:
    try:
        parsed = urllib3.util.parse_url(url)
    except LocationParseError as error:
        raise RejectSample(MISSING_MEDIA, f"{url[:200]}: no URL that can be read") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise RejectSample(MISSING_MEDIA, f"{url[:200]}: not an http(s) URL with a host")
    host = parsed.host.strip("[]")
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    netloc = parsed.host if parsed.port is None else f"{parsed.host}:{parsed.port}"
    shown = f"{parsed.scheme}://{netloc}{parsed.path or ''}"[:300]
    where = {"url": url, "scheme": parsed.scheme, "host": host, "netloc": netloc, "shown": shown}
    return _Target(**where, port=port, request=parsed.request_uri)


def _addresses(target: _Target, private_hosts: Collection[str]) -> list[str]:
    """The addresses of the host. All must be public: a name may stand for a public and a private one."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise RejectSample(MISSING_MEDIA, f"{target.shown}: there is no host of that name") from error
        raise _Failed(f"{target.host}: {error.strerror}") from error
    except UnicodeError as error:
        raise RejectSample(MISSING_MEDIA, f"{target.shown}: no name of a host") from error
    addresses = [str(entry[4][0]) for entry in found]
    hidden = [address for address in addresses if not _is_public(address)]
    if hidden and target.host not in private_hosts:
        raise RejectSample(
            REMOTE_MEDIA,
            f"{target.shown}: {hidden[0]} is not a public address; [mix] fetch_private_hosts may name the host",
        )
    return addresses


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_global and not parsed.is_multicast


def _pool(target: _Target, address: str) -> urllib3.HTTPConnectionPool:
    """Connections to the address that was checked: asked again, the name could lead elsewhere."""
    if target.scheme == "http":
        return urllib3.HTTPConnectionPool(address, target.port, timeout=TIMEOUT)
    return urllib3.HTTPSConnectionPool(
        address, target.port, timeout=TIMEOUT, server_hostname=target.host, assert_hostname=target.host
    )


def _answer(pool: urllib3.HTTPConnectionPool, target: _Target) -> urllib3.BaseHTTPResponse | str:
    """The answer whose body is the medium, or where it lies instead."""
    headers = {"Host": target.netloc, "User-Agent": "vlm-prep", "Accept-Encoding": "identity"}
    try:
        answer = pool.urlopen(
            "GET", target.request, headers=headers, redirect=False, retries=False, preload_content=False
        )
    except SSLError as error:
        if error.args and isinstance(error.args[0], ssl.SSLCertVerificationError):
            raise RejectSample(MISSING_MEDIA, f"{target.shown}: its certificate does not hold") from error
        raise _Failed(str(error)) from error
    except HTTPError as error:
        raise _Failed(f"{type(error).__name__} at {target.netloc}") from error
    if answer.status in TRY_AGAIN:
        raise _Failed(f"the server answers {answer.status}")
    if answer.status in REDIRECTS and "Location" in answer.headers:
        return answer.headers["Location"]
    if answer.status != 200:
        raise RejectSample(MISSING_MEDIA, f"{target.shown}: the server answers {answer.status}")
    return answer


def _body(answer: urllib3.BaseHTTPResponse, target: _Target, max_bytes: int, deadline: float) -> bytes:
    stated = answer.headers.get("Content-Length", "")
    content = bytearray()
    try:
        if stated.isdecimal() and int(stated) > max_bytes:
            raise _too_large(target)
        for block in answer.stream(BLOCK):
            content += block
            if len(content) > max_bytes:
                raise _too_large(target)
            if time.monotonic() > deadline:
                raise _Failed(f"not whole after {MAX_SECONDS:.0f} s")
    except HTTPError as error:
        raise _Failed(f"{type(error).__name__} after {len(content):,} bytes") from error
    return bytes(content)


def _too_large(target: _Target) -> RejectSample:
    return RejectSample(SAMPLE_TOO_LARGE, f"{target.shown}: with it the sample is over max_sample_bytes")
