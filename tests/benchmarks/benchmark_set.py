"""The benchmark set: some 16,000 real pictures with captions out of Debian packages, as an i4 tree of 720 MB.

Drawings of openclipart (their titles and keywords), stamps of tuxpaint (their captions, in many languages) and crops of
photographs that desktops have as wallpapers. Nothing of it stands in the repository: ``apt-get download`` fetches the
packages (500 MB) into a cache folder, ``$VLM_MIX_BENCH`` or ``~/.cache/vlm-mix/bench``, where the set stays. A larger
set is the same tars again, by hard links under other names.

    python tests/benchmarks/benchmark_set.py [TIMES]       makes the set and prints its folder
"""

import html
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

PACKAGES = (
    "openclipart-png", "openclipart-svg", "tuxpaint-stamps-default", "gnome-backgrounds", "mate-backgrounds",
    "plasma-workspace-wallpapers", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04",
)  # fmt: skip
SAMPLES_PER_TAR = 1000
TARS_PER_FOLDER = 8
NUM_CROPS = 7000
LANGUAGES = {"de": "German", "fr": "French", "ja": "Japanese", "ru": "Russian"}


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture and what is said of it."""

    content: bytes
    suffix: str
    caption: str
    translations: dict[str, str] = field(default_factory=dict)


def benchmark_set(times: int = 1) -> Path:
    """The folder with ``wdinfo.json`` of the set, ``times`` over; made where it is not there yet."""
    cache = cache_folder()
    once = cache / "once"
    if not once.exists():
        packages = unpack_packages(cache / "packages")
        staged = cache / "staged"
        shutil.rmtree(staged, ignore_errors=True)
        write_tars(all_pictures(packages), staged, root=once)
        staged.rename(once)
        shutil.rmtree(packages)
    return once if times == 1 else link_tars(once, cache / f"times-{times}", times)


def cache_folder() -> Path:
    """Where the set and what else the benchmarks keep stands."""
    return Path(os.environ.get("VLM_MIX_BENCH", Path.home() / ".cache" / "vlm-mix" / "bench"))


def unpack_packages(folder: Path) -> Path:
    """``folder``, with the files of the packages in it; nothing is installed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *PACKAGES]
    subprocess.run(command, cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        package.unlink()
    return folder


def all_pictures(packages: Path) -> list[Picture]:
    """Drawings, stamps and crops, mixed."""
    share = packages / "usr" / "share"
    wallpapers = find_wallpapers(share)
    number = NUM_CROPS // len(wallpapers) + 1
    pictures = [*drawings(share / "openclipart"), *stamps(share / "tuxpaint" / "stamps")]
    with ProcessPoolExecutor() as pool:
        for crops in pool.map(cut_crops, wallpapers, [number] * len(wallpapers), range(len(wallpapers))):
            pictures += crops
    random.Random(7).shuffle(pictures)
    return pictures


def drawings(folder: Path) -> Iterator[Picture]:
    """PNGs whose title and keywords stand in the SVG that they were drawn from."""
    for path in sorted((folder / "png").rglob("*.png")):
        twin = folder / "svg" / path.relative_to(folder / "png").with_suffix(".svg")
        text = twin.read_bytes()[:400_000].decode(errors="replace") if twin.exists() else ""
        found = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", text, re.DOTALL)
        title = html.unescape(found[1].strip()) if found else ""
        subject = re.search(r"<dc:subject>(.*?)</dc:subject>", text, re.DOTALL)
        items = re.findall(r"<rdf:li[^>]*>(.*?)</rdf:li>", subject[1], re.DOTALL) if subject else []
        keywords = f" Keywords: {', '.join(html.unescape(item.strip()) for item in items)}." if items else ""
        caption = f"{title or path.stem.replace('_', ' ')}.{keywords}"
        yield Picture(path.read_bytes(), "png", caption)


def stamps(folder: Path) -> Iterator[Picture]:
    """PNGs with a caption and its translations beside them."""
    for path in sorted(folder.rglob("*.png")):
        text = path.with_suffix(".txt")
        if path.stem.endswith("_mirror") or not text.exists():
            continue
        caption, *lines = text.read_text(errors="replace").splitlines()
        pairs = (line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
        translations = {LANGUAGES[key]: value.strip() for key, value in pairs if key in LANGUAGES}
        yield Picture(path.read_bytes(), "png", caption, translations)


def find_wallpapers(share: Path) -> list[Path]:
    """The largest file of each wallpaper."""
    largest: dict[str, Path] = {}
    for path in sorted(path for name in ("backgrounds", "wallpapers") for path in (share / name).rglob("*")):
        is_picture = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp") and "screenshot" not in path.name
        if is_picture and path.is_file() and not path.is_symlink():
            key = f"{wallpaper_name(path)} {'images_dark' in str(path)}"
            if key not in largest or path.stat().st_size > largest[key].stat().st_size:
                largest[key] = path
    return sorted(largest.values())


def wallpaper_name(path: Path) -> str:
    """Its folder's name where a wallpaper is a folder of sizes, else the file's."""
    named = path.parents[path.parts[::-1].index("contents")].name if "contents" in path.parts else path.stem
    return re.sub("[_-]+", " ", named)


def cut_crops(path: Path, number: int, seed: int) -> list[Picture]:
    """JPEG crops of a photograph, with where they were cut."""
    choice = random.Random(seed)
    Image.MAX_IMAGE_PIXELS = None
    photo = Image.open(path).convert("RGB")
    crops = []
    for _ in range(number):
        width = min(choice.choice([384, 512, 640, 768, 896, 1024]), photo.width)
        height = min(int(width * choice.choice([0.66, 0.75, 1, 1.33])), photo.height)
        left, top = choice.randint(0, photo.width - width), choice.randint(0, photo.height - height)
        file = io.BytesIO()
        crop = photo.crop((left, top, left + width, top + height))
        crop.save(file, "JPEG", quality=choice.choice([85, 90, 95]))
        across = ("left", "central", "right")[min(3 * (left + width // 2) // photo.width, 2)]
        down = ("upper", "middle", "lower")[min(3 * (top + height // 2) // photo.height, 2)]
        caption = f'A {width}x{height} view of the {down} {across} part of the picture "{wallpaper_name(path)}".'
        crops.append(Picture(file.getvalue(), "jpg", caption))
    return crops


def write_tars(pictures: list[Picture], folder: Path, *, root: Path) -> None:
    """The pictures as an i4 tree that will stand at ``root``."""
    names = []
    for number, begin in enumerate(range(0, len(pictures), SAMPLES_PER_TAR)):
        names.append(f"part_{number // TARS_PER_FOLDER:06d}/{number % TARS_PER_FOLDER:06d}.tar")
        texts, media = folder / "texts" / names[-1], folder / "media" / names[-1]
        for path in (texts, media):
            path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(texts, "w") as texts_tar, tarfile.open(media, "w") as media_tar:
            for key, picture in enumerate(pictures[begin : begin + SAMPLES_PER_TAR], begin):
                name = f"{key:09d}.{picture.suffix}"
                add_member(texts_tar, f"{key:09d}.json", json.dumps(messages(picture, name)).encode())
                add_member(media_tar, name, picture.content)
    write_wdinfo(folder, names, len(pictures), root=root)


def messages(picture: Picture, name: str) -> list[dict[str, object]]:
    """The conversation about a picture; a turn for each translation of its caption."""
    turns: list[dict[str, object]] = [
        {
            "role": "user",
            "content": [{"type": "image", "image": name}, {"type": "text", "text": "What does this picture show?"}],
        },
        {"role": "assistant", "content": picture.caption},
    ]
    for language, caption in picture.translations.items():
        turns += [{"role": "user", "content": f"Say it in {language}."}, {"role": "assistant", "content": caption}]
    return turns


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a file to a tar."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def write_wdinfo(folder: Path, names: list[str], num_samples: int, *, root: Path) -> None:
    """The file that lists the tars."""
    wdinfo = {"root": str(root), "data_list": names, "total_key_count": num_samples}
    (folder / "wdinfo.json").write_text(json.dumps(wdinfo))


def link_tars(once: Path, root: Path, times: int) -> Path:
    """``root`` with every tar of ``once`` under ``times`` names."""
    shutil.rmtree(root, ignore_errors=True)
    wdinfo = json.loads((once / "wdinfo.json").read_text())
    names = []
    for copy in range(times):
        for name in wdinfo["data_list"]:
            names.append(f"copy_{copy:03d}/{name}")
            for key in ("texts", "media"):
                target = root / key / names[-1]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(once / key / name)
    write_wdinfo(root, names, times * wdinfo["total_key_count"], root=root)
    return root


if __name__ == "__main__":
    print(benchmark_set(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
