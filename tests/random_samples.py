"""Random real samples: pictures of every EXIF orientation, films of uneven frame rate, options, alternatives.

``write_sources`` writes them as an i4 source and as a JSONL source beside it; everything follows from the seed.
"""

import io
import json
import pickle
import tarfile
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import av
import numpy as np
from PIL import Image

TEXT = "what is shown here now then a cat the naïve 東京 🐱 def f(x): \n\n  1,024 <im_end> assistant user"
WORDS = TEXT.split(" ")
IMAGE_FORMATS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("gif", "GIF"))
IMAGE_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"max_pixels": 5000},
    {"min_pixels": 20000, "max_pixels": 40000},
    {"resized_height": 64, "resized_width": 96},
)
VIDEO_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"fps": 1.5},
    {"fps": 4, "max_pixels": 6000},
    {"nframes": 6},
    {"min_frames": 4, "max_frames": 8},
    {"video_start": 0.2, "video_end": 0.9},
    {"total_pixels": 60000},
)
NUM_FILMS = 12

Content = dict[str, Any]


def picture(random: Random) -> tuple[str, bytes]:
    """Suffix and content of a random image, often turned by EXIF."""
    suffix, file_format = random.choice(IMAGE_FORMATS)
    size = (random.randint(5, 150), random.randint(5, 150))
    image = Image.fromarray(np.random.default_rng(random.randrange(1 << 30)).integers(0, 255, (*size, 3), np.uint8))
    options = {}
    if file_format != "GIF" and random.random() < 0.5:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = random.randint(1, 8)
    file = io.BytesIO()
    image.convert(random.choice(("RGB", "L"))).save(file, file_format, **options)
    return suffix, file.getvalue()


def film(random: Random) -> bytes:
    """A short MP4 whose frames stand for different times."""
    size, file, now = (2 * random.randint(10, 60), 2 * random.randint(10, 60)), io.BytesIO(), 0
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(random.choice((1, 2, 3, 9, 30, 61))):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), number * 4, np.uint8), format="rgb24")
            frame.pts, frame.time_base = now, Fraction(1, 1000)
            now += random.choice((20, 40, 40, 125, 300))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def words(random: Random, *, most: int = 12) -> str:
    """Some text."""
    return " ".join(random.choice(WORDS) for _ in range(random.randint(1, most)))


def conversation(random: Random, names: list[str]) -> list[dict[str, Any]]:
    """Turns that show all media, in any order, among text."""
    turns: list[dict[str, Any]] = []
    if random.random() < 0.2:
        turns.append({"role": "system", "content": words(random)})
    waiting = random.sample(names, len(names))
    for number in range(random.randint(1, 3)):
        shown = waiting if number == 0 and random.random() < 0.7 else waiting[:1]
        items: list[Content] = [shown_item(random, name) for name in shown]
        waiting = waiting[len(shown) :]
        items.insert(random.randint(0, len(items)), {"type": "text", "text": words(random)})
        turns.append({"role": "user", "content": items})
        turns.append({"role": "assistant", "content": words(random, most=20)})
    if waiting:
        turns[-2]["content"] = [*turns[-2]["content"], *(shown_item(random, name) for name in waiting)]
    return turns


def shown_item(random: Random, name: str) -> Content:
    """An item of a conversation, now and then with options."""
    kind, options = ("video", VIDEO_OPTIONS) if name.endswith(".mp4") else ("image", IMAGE_OPTIONS)
    return {"type": kind, kind: name, **(random.choice(options) if random.random() < 0.6 else {})}


def write_sources(folder: Path, *, num_samples: int, seed: int) -> None:
    """``bucket/set`` and ``listed.py``: i4, half of the samples, some with alternatives; ``lines.jsonl``: the rest."""
    random = Random(seed)
    films = [film(random) for _ in range(NUM_FILMS)]
    tars = {key: folder / "bucket" / "set" / key / "0.tar" for key in ("texts", "media")}
    lines = []
    for path in tars.values():
        path.parent.mkdir(parents=True)
    (folder / "files").mkdir()
    with tarfile.open(tars["texts"], "w") as texts, tarfile.open(tars["media"], "w") as media:
        for number in range(num_samples):
            kinds = random.choice(("", "i", "i", "ii", "iii", "v", "v", "iv", "vi"))
            contents = [("mp4", random.choice(films)) if kind == "v" else picture(random) for kind in kinds]
            if number % 2:
                lines.append(_line(folder, random, number, contents))
            else:
                _add_members(texts, media, random, number, contents)
    (folder / "lines.jsonl").write_text("".join(line + "\n" for line in lines))
    wdinfo = {"root": "set", "data_list": ["0.tar"], "total_key_count": (num_samples + 1) // 2}
    (folder / "bucket" / "set" / "wdinfo.json").write_text(json.dumps(wdinfo))
    (folder / "listed.py").write_text(
        "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
        "DATAINFO = {'set': DataSource(wdinfo_path={'train': 'set/wdinfo.json'}, text_keys=['texts'],"
        " media_keys=['media'])}\nweights = {'set': 1}\n"
    )


def _line(folder: Path, random: Random, number: int, contents: list[tuple[str, bytes]]) -> str:
    names = [f"files/{number}-{place}.{suffix}" for place, (suffix, _) in enumerate(contents)]
    for name, (_, content) in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    return json.dumps({"messages": conversation(random, names)})


def _add_members(
    texts: tarfile.TarFile, media: tarfile.TarFile, random: Random, number: int, contents: list[tuple[str, bytes]]
) -> None:
    """One i4 sample; its media are a pickled dict where there are several."""
    names = [f"{place}.{suffix}" for place, (suffix, _) in enumerate(contents)]
    alternatives = [conversation(random, names) for _ in range(random.choice((1, 1, 2, 3)))]
    _add(texts, f"{number:06d}.json", json.dumps(alternatives if len(alternatives) > 1 else alternatives[0]).encode())
    held = {name: content for name, (_, content) in zip(names, contents, strict=True)}
    _add(media, f"{number:06d}.pkl", pickle.dumps(held))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
