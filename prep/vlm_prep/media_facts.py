"""What is known of an image or video from its bytes alone: kind, format, size, length. Nothing is decoded."""

from vlm_catalogs.frozen_by_types import frozen_by_types
from vlm_catalogs.sample import MediaKind
from vlm_prep import video_header
from vlm_prep.image_header import read_image_header
from vlm_prep.video_header import read_video_header


class UnreadableMedia(Exception):
    """A medium that cannot be used; ``reason`` is ``media_empty`` or ``media_unreadable``, ``detail`` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@frozen_by_types
class HeaderFacts:
    """Facts of one medium (semantics A9)."""

    kind: MediaKind
    format: str
    """Lower case, by bytes."""
    width: int
    """Pixels: of an image after its EXIF orientation, of a video as PyAV decodes it (rotation not applied)."""
    height: int
    mode: str | None = None
    """Pillow mode; images only, as are orientation and animated."""
    orientation: int | None = None
    animated: bool | None = None
    duration: float | None = None
    """Seconds; videos only, as are fps and frames."""
    fps: float | None = None
    frames: int | None = None


def read_media_facts(content: bytes | memoryview) -> HeaderFacts:
    """The facts of one encoded image or video; its bytes alone say which it is. Raises UnreadableMedia."""
    view = memoryview(content)
    if not len(view):
        raise UnreadableMedia("media_empty", "0 bytes")
    try:
        media_format = sniff_format(bytes(view[:SNIFFED_BYTES]))
        if media_format is None:
            raise ValueError(f"neither an image nor a video that is known here; it begins with {bytes(view[:12])!r}")
        is_video = media_format in video_header.DEMUXERS
        return _video_facts(view, media_format) if is_video else _image_facts(view, media_format)
    except ValueError as error:
        raise UnreadableMedia("media_unreadable", f"{error} ({len(view):,} bytes)") from error


def _image_facts(content: memoryview, image_format: str) -> HeaderFacts:
    header = read_image_header(content, image_format)
    width, height = header.upright_size
    return HeaderFacts("image", image_format, width, height, header.mode, header.orientation, header.animated)


def _video_facts(content: memoryview, video_format: str) -> HeaderFacts:
    header = read_video_header(content, video_format)
    return HeaderFacts(
        kind="video",
        format=video_format,
        width=header.width,
        height=header.height,
        duration=header.duration,
        fps=header.fps,
        frames=header.frames,
    )


SNIFFED_BYTES = 400
TRANSPORT_PACKET = 188

PREFIXES = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"\0\0\x01\xba": "mpeg",
    b"FLV\x01": "flv",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "wmv",
    b"OggS": "ogg",
}
AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
OLD_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def sniff_format(head: bytes) -> str | None:
    """The format that the first bytes of a file say, None for none that is known here; raises ValueError for HEIF."""
    for prefix, media_format in PREFIXES.items():
        if head.startswith(prefix):
            return media_format
    for sniff in (_sniff_riff, _sniff_boxes, _sniff_matroska, _sniff_ppm, _sniff_transport_stream):
        if found := sniff(head):
            return found
    return None


def _sniff_riff(head: bytes) -> str | None:
    return {b"WEBP": "webp", b"AVI ": "avi"}.get(head[8:12]) if head.startswith(b"RIFF") else None


def _sniff_boxes(head: bytes) -> str | None:
    """ISO base media files and QuickTime, by their brands."""
    if head[4:8] in OLD_QUICKTIME_ATOMS:
        return "mov"
    if head[4:8] != b"ftyp":
        return None
    box = head[8 : int.from_bytes(head[:4])]
    brands = [box[begin : begin + 4] for begin in range(0, len(box), 4)]
    if any(brand in brands for brand in AVIF_BRANDS):
        return "avif"
    if any(brand in brands[:1] for brand in HEIF_BRANDS):
        raise ValueError("HEIF images are not read; convert them to JPEG or PNG")
    return "mov" if brands[:1] == [b"qt  "] else "mp4"


def _sniff_matroska(head: bytes) -> str | None:
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    return "webm" if b"webm" in head[:64] else "mkv"


def _sniff_ppm(head: bytes) -> str | None:
    is_ppm = head[:1] == b"P" and head[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") and head[2:3].isspace()
    return "ppm" if is_ppm else None


def _sniff_transport_stream(head: bytes) -> str | None:
    return "mpegts" if head[:1] == head[TRANSPORT_PACKET : TRANSPORT_PACKET + 1] == b"G" else None
