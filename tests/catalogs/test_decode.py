"""What decodes, and to which pixels; bytes that do not decode raise only what callers expect."""

from io import BytesIO

import av
import numpy as np
import pytest
from PIL import Image
from tests.made_media import encoded, noise, video

from vlm_catalogs.decode import MEDIA_ERRORS, BrokenMedia, decode_frames, decode_image

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def test_an_exif_orientation_turns_the_pixels() -> None:
    image, exif = noise(48, 32), Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees
    pixels = decode_image(encoded(image, "PNG", exif=exif))
    assert np.array_equal(pixels, np.asarray(image.rotate(-90, expand=True)))


def test_garbage_in_the_place_of_exif_leaves_the_pixels_as_conversion_measured_them() -> None:
    file = BytesIO()
    Image.new("RGB", (64, 32), "red").save(file, "JPEG", dpi=(72, 72), exif=b"Exif\x00\x00garbage!garbage!")
    assert decode_image(memoryview(file.getvalue())).shape == (32, 64, 3)


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 255, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    pixels = decode_image(encoded(image, "PNG"))
    assert [tuple(pixel) for pixel in pixels[0, :3]] == [GREEN, (127, 127, 127), WHITE]


def test_a_palette_with_a_transparent_colour_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    pixels = decode_image(encoded(image, "PNG", transparency=0))
    assert [tuple(pixel) for pixel in pixels[0]] == [WHITE, GREEN]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    pixels = decode_image(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert (pixels == np.array(RED)).all()


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 0x1234, 0x8000, 0xFFFF]], dtype=np.uint16))
    pixels = decode_image(encoded(image, "PNG"))
    assert pixels[0, :, 0].tolist() == [0, 0x12, 0x80, 0xFF]
    assert pixels.shape == (1, 4, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    file_format = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    pixels = decode_image(encoded(Image.new("RGB", (6, 4), WHITE).convert(mode), file_format))
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 255).all()


def test_exactly_the_planned_frames_are_decoded_in_order_with_repeats() -> None:
    levels = [int(frame.mean().round(-1)) for frame in decode_frames(video(12), (0, 3, 3, 10, 11))]
    assert levels == [0, 30, 30, 100, 110]


def test_decoding_stops_at_the_last_planned_frame() -> None:
    content = bytearray(video(40))
    last_frames = slice(content.index(b"moov") - 64, content.index(b"moov") - 8)
    content[last_frames] = b"\xff" * 56
    assert len(list(decode_frames(memoryview(content), (0, 2)))) == 2
    with pytest.raises((av.FFmpegError, BrokenMedia)):
        list(decode_frames(memoryview(content), (0, 39)))


@pytest.mark.filterwarnings("ignore")  # Pillow says of many files what is odd about them
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_bytes_changed_at_random_decode_or_raise_what_is_expected(file_format: str) -> None:
    whole, random = encoded(noise(), file_format), np.random.default_rng(0)
    outcomes = {decode_image(whole).ndim}
    for _ in range(150):
        content = np.frombuffer(whole, np.uint8).copy()
        at = random.integers(0, len(content) if random.random() < 0.5 else min(len(content), 200), size=8)
        content[at] = random.integers(0, 256, size=8, dtype=np.uint8)
        end = random.integers(len(content)) if random.random() < 0.3 else len(content)
        try:
            outcomes.add(decode_image(memoryview(content[:end].tobytes())).ndim)
        except MEDIA_ERRORS:
            outcomes.add("refused")
    assert outcomes == {3, "refused"}
