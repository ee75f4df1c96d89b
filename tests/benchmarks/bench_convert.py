"""Speed of conversion: an i4 source of real picture crops to shards and index, one process.

Peers, in the same run on the same tars: the naive loop that people write (tarfile, json.loads, streaming.MDSWriter with
bytes columns) and ``cp -r`` of the tars. Each run is a fresh process; loop time leaves out imports; fsync is left out
on both sides (MDSWriter never syncs). Medians of ROUNDS interleaved rounds. Prints one JSON line per peer.
"""

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from PIL import Image

NUM_SAMPLES = int(os.environ.get("BENCH_SAMPLES", "8000"))
SAMPLES_PER_TAR = 1000
ROUNDS = 3
PHOTOS = Path(__file__).parents[1] / "demo_data" / "jsonl"


def make_source(root: Path) -> None:
    """NUM_SAMPLES JPEG crops with captions, as an i4 tree."""
    names = []
    for number, first in enumerate(range(0, NUM_SAMPLES, SAMPLES_PER_TAR)):
        names.append(f"part_000000/{number:06d}.tar")
        texts, media = root / "texts" / names[-1], root / "media" / names[-1]
        for path in (texts, media):
            path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(texts, "w") as texts_tar, tarfile.open(media, "w") as media_tar:
            for key in range(first, min(first + SAMPLES_PER_TAR, NUM_SAMPLES)):
                _add(texts_tar, f"{key:09d}.json", json.dumps(_messages(key)).encode())
                _add(media_tar, f"{key:09d}.jpg", _picture(key))
    wdinfo = {"root": str(root), "data_list": names, "total_key_count": NUM_SAMPLES}
    (root / "wdinfo.json").write_text(json.dumps(wdinfo))


def _messages(key: int) -> list[dict[str, object]]:
    question = [{"type": "image", "image": "image_0"}, {"type": "text", "text": "What does this picture show?"}]
    answer = [{"type": "text", "text": f"Crop number {key} of a photograph, cut for a benchmark."}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _picture(key: int, _base: list[Image.Image] = []) -> bytes:  # noqa: B006 - read the photographs once
    if not _base:
        for path in sorted(PHOTOS.rglob("*.jpg")):
            _base.append(Image.open(path).convert("RGB").resize((900, 700)))
    x, y = key * 37 % 400, key * 53 % 250
    file = io.BytesIO()
    _base[key % len(_base)].crop((x, y, x + 500, y + 400)).save(file, "JPEG", quality=92)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def convert_ours(root: Path, out: Path) -> float:
    """Seconds to convert the whole source with this project, index and header facts included."""
    import vlm_prep.staging as staging
    from vlm_catalogs.source import I4Source
    from vlm_prep.convert import ConvertTask, convert_part
    from vlm_prep.i4_inputs import plan_i4
    from vlm_prep.raw_sample import Limits

    staging.sync_tree = staging.sync_folder = lambda path: None  # type: ignore[assignment]
    begin = time.perf_counter()
    wdinfo = {"train": str(root / "wdinfo.json")}
    source = I4Source(name="bench", weight=1.0, wdinfo=wdinfo, bucket="", local_root=None, origin="bench")
    (out / "staging").mkdir(parents=True)
    for part in plan_i4(source, allow_missing_tars=False)[0]:
        limits = Limits(max_sample_bytes=1 << 28)
        convert_part(
            ConvertTask(
                source=source,
                file_format="i4",
                part=part,
                layout=out / "layout",
                staging=out / "staging",
                limits=limits,
            )
        )
    return time.perf_counter() - begin


def convert_naively(root: Path, out: Path) -> float:
    """Seconds of the loop that people write."""
    from streaming import MDSWriter

    begin = time.perf_counter()
    columns = {"id": "str", "messages": "json", "image": "bytes"}
    with MDSWriter(out=str(out), columns=columns, hashes=["xxh3_64"]) as writer:
        for name in json.loads((root / "wdinfo.json").read_text())["data_list"]:
            with tarfile.open(root / "texts" / name) as texts, tarfile.open(root / "media" / name) as media:
                for text, picture in zip(texts, media, strict=True):
                    messages = json.loads(_content(texts, text))
                    writer.write({"id": text.name[:-5], "messages": messages, "image": _content(media, picture)})
    return time.perf_counter() - begin


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def copy(root: Path, out: Path) -> float:
    """Seconds of ``cp -r``."""
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", str(root), str(out)], check=True)
    return time.perf_counter() - begin


WAYS = {"ours": convert_ours, "naive": convert_naively, "cp": copy}


def run_fresh(way: str, root: Path, out: Path) -> tuple[float, float]:
    """(loop seconds, wall seconds) of one way in a fresh process."""
    begin = time.perf_counter()
    command = [sys.executable, __file__, way, str(root), str(out)]
    loop = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    wall = time.perf_counter() - begin
    shutil.rmtree(out)
    return loop, wall


def main() -> None:
    """Print a JSON line per peer."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "source"
        make_source(root)
        num_bytes = sum(path.stat().st_size for path in root.rglob("*.tar"))
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                times[way].append(run_fresh(way, root, Path(folder) / way))
    loop = {way: statistics.median(run[0] for run in runs) for way, runs in times.items()}
    wall = {way: statistics.median(run[1] for run in runs) for way, runs in times.items()}
    for name, seconds, peer in (
        ("convert, loop, against naive MDSWriter", loop, "naive"),
        ("convert, wall, against naive MDSWriter", wall, "naive"),
        ("convert, loop, against cp -r", loop, "cp"),
    ):
        figures = {
            "benchmark": name,
            "unit": "samples/s",
            "figure": round(NUM_SAMPLES / seconds["ours"]),
            "peer": round(NUM_SAMPLES / seconds[peer]),
            "ratio": round(seconds[peer] / seconds["ours"], 2),
            "samples": NUM_SAMPLES,
            "megabytes": round(num_bytes / 1e6),
            "cores": os.cpu_count(),
        }
        print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(WAYS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        main()
