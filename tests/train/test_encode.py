from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.render.rendered import MediaPlan
from vlm_catalogs.sample import MediaFacts, Sample
from vlm_train.encode import BrokenMedia, UndecodableMedia, blank_frames, decode_frames, decode_image, load_frames

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def encoded(image: Image.Image, file_format: str, **options: Any) -> memoryview:
    file = BytesIO()
    image.save(file, file_format, **options)
    return memoryview(file.getvalue())


def noise(width: int = 48, height: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


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


def video(num_frames: int, *, codec: str = "mpeg4", size: tuple[int, int] = (48, 32)) -> memoryview:
    """Frame i is grey of level 10 * i, up to white."""
    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=Fraction(4))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((size[1], size[0], 3), min(10 * number, 255), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return memoryview(file.getvalue())


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


def test_a_video_with_fewer_frames_than_planned_is_undecodable_and_says_how_many() -> None:
    sample, plan = sample_of(video(6), "video", frame_indices=(0, 5, 9))
    with pytest.raises(UndecodableMedia, match="frame 9 is wanted, but only 6 frames decode"):
        load_frames(sample, plan, lambda frame: frame)


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_media_name_the_sample_and_the_medium(kind: Any, damage: str) -> None:
    whole = encoded(noise(), "JPEG") if kind == "image" else video(12)
    content = {"cut": whole[: len(whole) // 2], "empty": whole[:0], "text": memoryview(b"<html>404</html>")}[damage]
    sample, plan = sample_of(content, kind, frame_indices=(0, 11) if kind == "video" else ())
    with pytest.raises(UndecodableMedia) as caught:
        load_frames(sample, plan, lambda frame: frame)
    assert isinstance(caught.value, DataError)
    assert str(caught.value).startswith(f"photos/0001: {kind}_0 does not decode: ")
    assert (caught.value.dataset, caught.value.sample_id, caught.value.name) == ("photos", "0001", f"{kind}_0")


def test_blank_frames_have_the_planned_shape() -> None:
    _, image = sample_of(encoded(noise(), "PNG"), "image")
    _, clip = sample_of(video(6), "video", frame_indices=(0, 2, 4))
    assert blank_frames(image).shape == (1, 3, 32, 48)
    assert blank_frames(clip).shape == (3, 3, 32, 48)


def sample_of(content: memoryview, kind: Any, *, frame_indices: tuple[int, ...] = ()) -> tuple[Sample, MediaPlan]:
    facts = MediaFacts(
        name=f"{kind}_0",
        kind=kind,
        format="any",
        offset=3,
        size=len(content),
        xxh3_128=content_hash(content),
        width=48,
        height=32,
    )
    sample = Sample(
        sample_id="0001", dataset="photos", messages=[], media=b"xyz" + bytes(content), media_table=(facts,)
    )
    plan = MediaPlan(
        name=facts.name,
        kind=kind,
        height=32,
        width=48,
        grid=(1, 2, 3),
        frame_indices=frame_indices,
        num_tokens=1,
        num_patches=6,
    )
    return sample, plan
