"""Media that lie beside a JSON file: paths under a folder, ``data:`` URLs in the text itself, or http(s) URLs."""

import binascii
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes

from vlm_catalogs.errors import StorageError
from vlm_prep.conversation import RejectSample, is_remote, is_web
from vlm_prep.naming import short_name
from vlm_prep.raw_sample import Limits
from vlm_prep.reasons import MEDIA_OUTSIDE_ROOT, MEDIA_UNREADABLE, MISSING_MEDIA, REMOTE_MEDIA, SAMPLE_TOO_LARGE


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFolder:
    """Where media paths lead."""

    start: Path
    """Relative paths start here."""
    boundary: Path
    """No path may lead out of this folder, by ``..`` or by a link."""


def load_media(names: Sequence[str], folder: MediaFolder, limits: Limits, *, max_bytes: int) -> dict[str, bytes]:
    """Name -> encoded bytes of each medium, at most ``max_bytes`` in all. Sizes are checked before files are loaded.

    Raises RejectSample for a medium that cannot be had and StorageError when the storage fails.
    """
    for name in filter(is_remote, names):
        _check_fetchable(name, limits)
    paths = {name: _inside(name, folder) for name in names if not name.startswith("data:") and not is_remote(name)}
    total = sum(_size(name, path) for name, path in paths.items())
    if total > max_bytes:
        raise RejectSample(SAMPLE_TOO_LARGE, f"{total:,} bytes of media, max_sample_bytes is the limit")
    contents: dict[str, bytes] = {}
    room = max_bytes - total
    for name in names:
        if name in paths:
            contents[name] = _read(paths[name])
        elif is_remote(name) and name not in contents:
            from vlm_prep.web_media import fetch  # urllib3 is a tenth of all imports

            contents[name] = fetch(name, max_bytes=room, private_hosts=limits.fetch_private_hosts)
            room -= len(contents[name])
        elif name not in contents:
            contents[name] = _decode_data_url(name)
    return contents


def _check_fetchable(name: str, limits: Limits) -> None:
    if not is_web(name):
        raise RejectSample(
            REMOTE_MEDIA, f"{name[:200]}: only http(s) URLs can be fetched; download it and name the file"
        )
    if not limits.fetch_media:
        raise RejectSample(
            REMOTE_MEDIA, f"{name[:200]}: download it and name the file, or set [mix] fetch_media = true"
        )


def _inside(name: str, folder: MediaFolder) -> Path:
    location = unquote(name.removeprefix("file://")) if name.startswith("file://") else name
    if "\0" in location:
        raise RejectSample(MISSING_MEDIA, f"{location!r} is no path")
    try:
        path = (folder.start / location).resolve()
        if not path.is_relative_to(folder.boundary.resolve()):
            raise RejectSample(MEDIA_OUTSIDE_ROOT, f"{name[:300]} leads out of the media root")
    except (OSError, RuntimeError) as error:
        raise RejectSample(MISSING_MEDIA, f"{name[:300]}: {error}") from error
    return path


def _size(name: str, path: Path) -> int:
    try:
        if not path.is_file():
            raise RejectSample(MISSING_MEDIA, f"{name[:300]}: no such file")
        return path.stat().st_size
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise RejectSample(MISSING_MEDIA, f"{name[:300]}: too long for a path") from error
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def _decode_data_url(url: str) -> bytes:
    """The bytes of a ``data:`` URL (RFC 2397)."""
    comma = url.find(",")
    if comma < 0:
        raise RejectSample(MEDIA_UNREADABLE, f"{url[:60]}: a data: URL without a comma")
    try:
        raw = unquote_to_bytes(url[comma + 1 :])  # with no other copies: it may be 256 MiB
        return binascii.a2b_base64(raw, strict_mode=True) if url.endswith(";base64", 0, comma) else raw
    except (binascii.Error, ValueError) as error:
        raise RejectSample(MEDIA_UNREADABLE, f"{short_name(url)}: {error}") from error
