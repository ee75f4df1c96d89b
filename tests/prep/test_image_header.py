import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from vlm_prep.image_header import PLUGINS, read_image_header, read_with_pillow
from vlm_prep.media_facts import UnreadableMedia, read_media_facts, sniff_format
from vlm_prep.quick_header import read_quickly

DEMO_DATA = Path(__file__).parents[1] / "demo_data"
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def picture(mode: str = "RGB", size: tuple[int, int] = (13, 7)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(noise)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = [(0x010F, 3, 1, 7), (0x0112, 3, 1, orientation)]
    body = b"".join(struct.pack(order + "HHIHH", *entry, 0) for entry in entries)
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, len(entries)) + body + bytes(4)


def with_png_chunk(content: bytes, name: bytes, payload: bytes, *, before: bytes) -> bytes:
    at = content.index(before) - 4
    chunk = struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))
    return content[:at] + chunk + content[at:]


PNG = encoded(picture(), "PNG")
ITXT_XMP = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 6

QUICK_IMAGES: dict[str, bytes] = {
    **{f"jpeg {mode}": encoded(picture(mode), "JPEG") for mode in ("L", "RGB", "CMYK")},
    "jpeg progressive": encoded(picture(), "JPEG", progressive=True, comment=b"hello", dpi=(72, 72)),
    "jpeg with icc": encoded(picture(), "JPEG", icc_profile=b"p" * 70_000),
    "jpeg with exif and xmp": encoded(picture(), "JPEG", exif=exif(3), xmp=XMP % 6),
    "jpeg with xmp only": encoded(picture(), "JPEG", xmp=XMP % 6),
    "jpeg with exif without orientation": encoded(picture(), "JPEG", exif=exif(1)[:-30] + bytes(30)),
    "jpeg with fill bytes": encoded(picture(), "JPEG").replace(b"\xff\xdb", b"\xff\xff\xff\xdb"),
    **{f"jpeg turned {n}": encoded(picture(), "JPEG", exif=exif(n, "<>"[n % 2])) for n in range(10)},
    **{f"png {mode}": encoded(picture(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "png of 2 bits": encoded(picture("P").quantize(4), "PNG", bits=2),
    "png interlaced 1-bit palette": encoded(picture().quantize(2), "PNG"),
    "png with transparency": encoded(picture("P"), "PNG", transparency=3),
    "png with exif": with_png_chunk(PNG, b"eXIf", exif(6, ">")[6:], before=b"IDAT"),
    "png with late exif": with_png_chunk(PNG, b"eXIf", exif(8)[6:], before=b"IEND"),
    "png with xmp": with_png_chunk(PNG, b"iTXt", ITXT_XMP, before=b"IDAT"),
    "png with late xmp": with_png_chunk(PNG, b"iTXt", ITXT_XMP, before=b"IEND"),
    "png with text": with_png_chunk(PNG, b"tEXt", b"Title\0hello", before=b"IDAT"),
    "webp": encoded(picture(), "WEBP"),
    "webp lossless": encoded(picture(), "WEBP", lossless=True),
    "webp with alpha": encoded(picture("RGBA"), "WEBP"),
    "webp lossless with alpha": encoded(picture("RGBA"), "WEBP", lossless=True),
    "webp with exif": encoded(picture(), "WEBP", exif=exif(5)),
    "webp lossless with alpha and xmp": encoded(picture("RGBA"), "WEBP", lossless=True, xmp=XMP % 7),
    "webp with icc": encoded(picture("RGBA"), "WEBP", icc_profile=b"p" * 99),
}
SLOW_IMAGES: dict[str, bytes] = {
    "webp animated": encoded(picture(), "WEBP", save_all=True, append_images=[picture().rotate(90)]),
    "webp animated with alpha": encoded(picture("RGBA"), "WEBP", save_all=True, append_images=[picture().rotate(90)]),
    "gif": encoded(picture(), "GIF"),
    "gif animated": encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)]),
    "bmp": encoded(picture(), "BMP"),
    "tiff": encoded(picture(), "TIFF"),
    "tiff big endian turned": encoded(picture(), "TIFF", tiffinfo={0x0112: 6}),
    "tiff 16 bit": encoded(picture("I;16"), "TIFF"),
    "tiff of two pages": encoded(picture(), "TIFF", save_all=True, append_images=[picture().rotate(90)]),
    "ppm": encoded(picture(), "PPM"),
    "pgm": encoded(picture("L"), "PPM"),
    "avif": encoded(picture(), "AVIF"),
    "avif turned": encoded(picture(), "AVIF", exif=exif(6)),
    "jpeg2000": encoded(picture(), "JPEG2000"),
    "jpeg2000 stream": encoded(picture(), "JPEG2000", no_jp2=True),
    "png animated": encoded(picture(), "PNG", save_all=True, append_images=[picture().rotate(90)]),
    "png with raw exif profile": encoded(picture(), "PNG", pnginfo=PngImagePlugin.PngInfo()),
    "jpeg with two frames (mpo)": encoded(picture(), "MPO", save_all=True, append_images=[picture()]),
    "jpeg with junk between markers": encoded(picture(), "JPEG").replace(b"\xff\xdb", b"jnk\xff\xdb", 1),
}


@pytest.mark.parametrize("content", QUICK_IMAGES.values(), ids=QUICK_IMAGES.keys())
def test_ordinary_images_are_read_quickly_and_as_pillow_does(content: bytes) -> None:
    image_format = sniff_format(content)
    assert image_format is not None
    header = read_quickly(memoryview(content), image_format)
    assert header is not None
    with Image.open(io.BytesIO(content)) as image:
        orientation = image.getexif().get(0x0112)
        assert (header.width, header.height, header.mode) == (*image.size, image.mode)
        assert header.animated == getattr(image, "is_animated", False)
        assert header.orientation == (orientation if orientation in range(1, 9) else None)


@pytest.mark.parametrize("content", [*QUICK_IMAGES.values(), *SLOW_IMAGES.values()], ids=[*QUICK_IMAGES, *SLOW_IMAGES])
def test_facts_are_those_of_the_decoded_and_upright_image(content: bytes) -> None:
    facts = read_media_facts(memoryview(content))
    with Image.open(io.BytesIO(content)) as image:
        assert facts.kind == "image"
        assert facts.format == {"MPO": "jpeg"}.get(str(image.format), str(image.format).lower())
        assert facts.animated == (getattr(image, "is_animated", False) and image.format != "MPO")
        image.load()
        upright = ImageOps.exif_transpose(image)
        assert (facts.width, facts.height) == upright.size
        assert facts.mode == image.mode or facts.format == "gif"
    assert (facts.duration, facts.fps, facts.frames) == (None, None, None)


def test_demo_images_are_read_quickly_and_as_pillow_does() -> None:
    paths = [path for path in DEMO_DATA.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png", ".webp")]
    assert len(paths) > 10
    for path in paths:
        content = memoryview(path.read_bytes())
        image_format = sniff_format(bytes(content[:400]))
        assert image_format is not None
        assert read_quickly(content, image_format) == read_with_pillow(content, image_format), path


MUTANTS = ("jpeg with exif and xmp", "png with exif", "webp with exif", "webp lossless with alpha and xmp")
ALL_IMAGES = QUICK_IMAGES | SLOW_IMAGES


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(
    st.sampled_from(MUTANTS),
    st.lists(st.tuples(st.integers(12, 400), st.integers(0, 255)), max_size=3),
    st.integers(20, 4000),
)
def test_damage_never_reads_otherwise_than_pillow(name: str, flips: list[tuple[int, int]], end: int) -> None:
    damaged = bytearray(QUICK_IMAGES[name])
    for position, byte in flips:
        damaged[position % len(damaged)] = byte
    view = memoryview(bytes(damaged[:end]))
    if (image_format := sniff_format(bytes(view[:400]))) not in ("jpeg", "png", "webp"):
        return
    header = read_quickly(view, image_format)
    try:
        by_pillow = read_with_pillow(view, image_format)
    except ValueError:
        return
    assert header is None or header == by_pillow


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(ALL_IMAGES)), st.data())
def test_any_damage_gives_facts_or_unreadable_media(name: str, data: st.DataObject) -> None:
    content = ALL_IMAGES[name]
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 5))):
        damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = read_media_facts(bytes(damaged[: data.draw(st.integers(0, len(content)))]))
    except UnreadableMedia as error:
        assert error.reason in ("media_empty", "media_unreadable")
    else:
        assert facts.width > 0
        assert facts.height > 0


@pytest.mark.parametrize("size", [(50_000, 50_000), (65_500, 65_500)])
@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_a_huge_size_is_reported_not_refused(image_format: str, size: tuple[int, int]) -> None:
    content = bytearray(encoded(picture(), image_format))
    if image_format == "png":
        content[16:24] = struct.pack(">II", *size)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", *size)
    facts = read_media_facts(bytes(content))
    assert (facts.width, facts.height) == size
    assert read_with_pillow(memoryview(content), image_format).width == size[0]


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"", "media_empty", "0 bytes"),
        (b"GIF89a", "media_unreadable", "no readable gif header"),
        (b"\xff\xd8\xff", "media_unreadable", "no readable jpeg header"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "media_unreadable", "neither an image nor a video"),
        (b"%PDF-1.7", "media_unreadable", "neither an image nor a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "media_unreadable", "neither an image nor a video"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "media_unreadable", "HEIF images are not read"),
        (PNG[:40], "media_unreadable", "no readable png header"),
        (bytes(1000), "media_unreadable", "neither an image nor a video"),
    ],
)
def test_what_is_no_readable_image_is_said_with_its_reason(content: bytes, reason: str, detail: str) -> None:
    with pytest.raises(UnreadableMedia) as raised:
        read_media_facts(content)
    assert raised.value.reason == reason
    assert detail in raised.value.detail


@pytest.mark.parametrize("image_format", PLUGINS)
def test_an_image_without_a_size_is_unreadable(image_format: str) -> None:
    with pytest.raises(ValueError, match=f"no readable {image_format} header"):
        read_image_header(memoryview(b"\0" * 64), image_format)
    jpeg = bytearray(QUICK_IMAGES["jpeg RGB"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = bytes(4)
    with pytest.raises(UnreadableMedia):
        read_media_facts(bytes(jpeg))


def test_damaged_exif_is_no_orientation() -> None:
    content = encoded(picture(), "JPEG", exif=b"Exif\0\0" + b"garbage!" * 4)
    facts = read_media_facts(content)
    assert (facts.width, facts.height, facts.orientation) == (13, 7, None)


def test_an_animation_that_pillow_calls_a_bomb_is_unreadable() -> None:
    content = bytearray(SLOW_IMAGES["webp animated"])
    canvas = content.index(b"VP8X") + 12
    content[canvas : canvas + 6] = (16_382).to_bytes(3, "little") * 2
    with pytest.raises(UnreadableMedia, match=r"no readable webp header: .*decompression bomb"):
        read_media_facts(bytes(content))


SECOND_FRAME = b"\xff\xc0\0\x11\x08\0\x09\0\x0b\x03" + bytes(9)


def changed(name: str, mark: bytes, at: int, new: bytes) -> bytes:
    content = bytearray(QUICK_IMAGES[name])
    begin = content.index(mark) + at
    content[begin : begin + len(new)] = new
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        changed("jpeg RGB", b"\xff\xc0", 4, b"\x0c"),  # 12 bits
        changed("png RGB", b"IHDR", 17, b"\0\0\0\0"),  # checksum
        QUICK_IMAGES["webp"][:-20],
    ],
    ids=["jpeg of 12 bits", "png with a wrong checksum", "webp cut short"],
)
def test_what_pillow_refuses_by_its_header_is_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableMedia, match=r"no readable (jpeg|png|webp) header"):
        read_media_facts(content)


@pytest.mark.parametrize(
    "content",
    [
        QUICK_IMAGES["jpeg RGB"].replace(
            b"\xff\xc4", b"\xff\xc0\0\x11\x08\0\x09\0\x0b\x03" + bytes(9) + b"\xff\xc4", 1
        ),
        changed("webp with exif", b"VP8X", 8, b"\x0a"),
        *(SLOW_IMAGES[name] for name in ("webp animated", "png animated", "jpeg with junk between markers")),
    ],
    ids=["jpeg of two frames", "webp still that says animation", "webp animated", "png animated", "jpeg with junk"],
)
def test_the_unusual_is_left_to_pillow(content: bytes) -> None:
    image_format = sniff_format(content)
    assert image_format is not None
    assert read_quickly(memoryview(content), image_format) is None


def test_alpha_data_count_without_the_flag_of_alpha() -> None:
    content = memoryview(changed("webp with alpha", b"VP8X", 8, b"\0"))
    assert read_quickly(content, "webp") == read_with_pillow(content, "webp")


def test_pillow_reads_a_png_header_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: PngImagePlugin.PngImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    assert read_with_pillow(memoryview(PNG), "png").width == 13
