"""Decoded facts: they say undecodable exactly where training would refuse, and measure what the eye sees."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from tests.made_media import encoded, noise, video

from vlm_catalogs.decode import MEDIA_ERRORS, decode_frames, decode_image
from vlm_catalogs.errors import DataError
from vlm_catalogs.tables import DECODED
from vlm_prep.decoded import DecodeTask, decode, decode_part, image_facts, video_facts
from vlm_prep.fact_files import DECODED_NAME
from vlm_prep.part_store import LocalStore
from vlm_prep.picture_facts import perceptual_hash, picture_facts

PICTURES = sorted((Path(__file__).parents[1] / "demo_data" / "jsonl" / "media").rglob("*.*"))
PICTURES = [path for path in PICTURES if path.suffix in (".jpg", ".png", ".webp")]

HERE = LocalStore(Path("shards"))


def part_of(dataset: str) -> Path:
    (folder,) = Path("shards", dataset).glob("*/parts/*")
    return folder


@pytest.mark.parametrize("dataset", ["demo_photos", "demo_clipart", "demo_video"])
def test_a_part_has_a_row_for_each_medium_in_order(built: Path, dataset: str) -> None:
    table, media = decode_part(part_of(dataset), HERE), pq.read_table(part_of(dataset) / "media.parquet")
    assert table.schema == DECODED
    copied = ["sample_key", "position", "name", "xxh3_128", "kind"]
    assert table.select(copied).equals(media.select(copied))
    assert table["decoded"].to_pylist() == [True] * media.num_rows
    for row, frames in zip(table.to_pylist(), media["frames"].to_pylist(), strict=True):
        is_image = row["kind"] == "image"
        assert row["decoded_frames"] == (1 if is_image else frames)
        assert (row["phash"] is not None) == (row["luminance"] is not None) == is_image


def test_facts_are_published_beside_a_part_that_stays_as_it_is(built: Path) -> None:
    folder = part_of("demo_photos")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for _ in range(2):
        decode(DecodeTask(folder=folder, dataset="demo_photos", store=HERE, staging=built))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert pq.read_table(folder / DECODED_NAME).equals(decode_part(folder, HERE))


def test_a_medium_that_is_not_what_its_hash_says_stops_the_build(built: Path) -> None:
    shard = part_of("demo_photos") / "shard.00000.mds"
    row = pq.read_table(part_of("demo_photos") / "samples.parquet").to_pylist()[3]
    content = bytearray(shard.read_bytes())
    content[(row["byte_begin"] + row["byte_end"]) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="image_0 is not what its hash says"):
        decode_part(part_of("demo_photos"), HERE)


def is_refused(work: Any) -> bool:
    try:
        work()
    except MEDIA_ERRORS:
        return True
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_an_image_is_undecodable_where_training_refuses_it(file_format: str) -> None:
    whole, random = encoded(noise(), file_format), np.random.default_rng(1)
    outcomes = set()
    for end in (len(whole), *random.integers(0, len(whole), size=20)):
        content = np.frombuffer(whole, np.uint8)[:end].copy()
        content[random.integers(0, max(1, end), size=int(random.integers(0, 3)))[: len(content)]] ^= 255
        damaged = memoryview(content.tobytes())
        facts = image_facts(damaged)
        assert facts["decoded"] != is_refused(lambda damaged=damaged: decode_image(damaged))
        assert facts["decoded"] == (facts.get("problem") is None) == (facts.get("phash") is not None)
        outcomes.add(facts["decoded"])
    assert False in outcomes


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_video_is_undecodable_where_training_could_refuse_it(codec: str) -> None:
    num_frames, random = 24, np.random.default_rng(2)
    whole = np.frombuffer(video(num_frames, codec=codec), np.uint8)
    outcomes = set()
    for _ in range(40):
        content = whole.copy()
        at = int(random.integers(0, len(content)))
        content[at : at + int(random.integers(0, 80))] = int(random.integers(0, 256))
        end = int(random.integers(1, len(content))) if random.random() < 0.3 else len(content)
        damaged = memoryview(content[:end].tobytes())
        facts = video_facts(damaged, num_frames)
        frames = range(num_frames)
        is_whole = not is_refused(lambda damaged=damaged, frames=frames: list(decode_frames(damaged, frames)))
        assert facts["decoded"] == is_whole
        assert facts["decoded"] == (facts.get("problem") is None) == (facts["decoded_frames"] == num_frames)
        outcomes.add(facts["decoded"])
    assert outcomes == {True, False}


def test_a_video_shorter_than_its_header_says_how_many_frames_it_has() -> None:
    assert video_facts(video(6), 6) == {"decoded": True, "decoded_frames": 6}
    shorter = video_facts(video(6), 10)
    assert (shorter["decoded"], shorter["decoded_frames"]) == (False, 6)
    assert shorter["problem"] == "only 6 of 10 frames decode"


def test_a_decompression_bomb_is_undecodable_as_it_is_for_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    facts = image_facts(encoded(noise(48, 32), "PNG"))
    assert not facts["decoded"] and "decompression bomb" in facts["problem"]


def test_light_contrast_sharpness_and_grey() -> None:
    white, black = (picture_facts(np.full((40, 60, 3), level, np.uint8)) for level in (255, 0))
    assert (white.luminance, white.contrast, white.sharpness, white.phash, white.is_gray) == (255, 0, 0, 0, True)
    assert (black.luminance, black.phash) == (0, 0)
    picture = Image.open(next(path for path in PICTURES if path.suffix == ".jpg")).convert("RGB")
    sharp, blurred = (picture_facts(np.asarray(one)) for one in (picture, picture.filter(ImageFilter.GaussianBlur(2))))
    assert blurred.sharpness < sharp.sharpness / 4
    assert abs(blurred.luminance - sharp.luminance) < 1
    assert not picture_facts(np.asarray(Image.new("RGB", (20, 20), (200, 60, 60)))).is_gray
    grey = encoded(picture.convert("L").convert("RGB"), "JPEG", quality=60)
    assert picture_facts(decode_image(grey)).is_gray
    assert picture_facts(np.zeros((1, 1, 3), np.uint8)).sharpness == 0


def again(picture: Image.Image, file_format: str, **options: Any) -> Image.Image:
    return Image.fromarray(decode_image(encoded(picture, file_format, **options)))


def cropped(picture: Image.Image, share: float) -> Image.Image:
    across, down = (round(share * side) for side in picture.size)
    return picture.crop((across, down, picture.width - across, picture.height - down))


def distances(
    pictures: list[Image.Image], hashes: list[int], change: Callable[[Image.Image], Image.Image]
) -> list[int]:
    return [(perceptual_hash(change(one)) ^ old).bit_count() for one, old in zip(pictures, hashes, strict=True)]


def test_the_hash_finds_pictures_encoded_again_and_resized_and_not_others() -> None:
    pictures = [Image.fromarray(decode_image(memoryview(path.read_bytes()))) for path in PICTURES]
    hashes = [perceptual_hash(picture) for picture in pictures]
    ways = {
        "JPEG 60": (lambda one: again(one, "JPEG", quality=60), 0.98),
        "WebP 50": (lambda one: again(one, "WEBP", quality=50), 0.95),
        "half": (lambda one: one.resize((one.width // 2, one.height // 2), Image.Resampling.LANCZOS), 0.98),
        "double": (lambda one: one.resize((one.width * 2, one.height * 2), Image.Resampling.BICUBIC), 0.98),
        "1 % off each side": (lambda one: cropped(one, 0.01), 0.6),
    }
    for name, (change, least) in ways.items():
        near = [distance <= 3 for distance in distances(pictures, hashes, change)]
        assert sum(near) / len(near) >= least, name
    for change in (lambda one: cropped(one, 0.1), lambda one: one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
        assert min(distances(pictures, hashes, change)) > 3
    between = sorted((one ^ other).bit_count() for at, one in enumerate(hashes) for other in hashes[:at])
    assert len([distance for distance in between if distance <= 3]) <= 1, "two of the drawings are nearly the same"


def test_the_hash_is_the_same_number_on_every_machine() -> None:
    across, down = np.meshgrid(np.arange(64), np.arange(48))
    picture = np.stack([across * 4, down * 5, (across * down) % 256], axis=2).astype(np.uint8)
    assert f"{perceptual_hash(Image.fromarray(picture)):016x}" == "00020f1e3c383061"
