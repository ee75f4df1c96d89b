"""Speed of indexing text: a million JSONL samples without media to shards and index, in two processes.

The file is made at run time: questions and answers of random words, 250 bytes a line on average. fsync is left out.
Prints one JSON line.
"""

import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from bench_convert import convert_unsynced
from benchmark_set import cache_folder

NUM_SAMPLES = int(os.environ.get("BENCH_ROWS", "1000000"))
NUM_WORKERS = 2
LIMIT_SECONDS = 60
"""What issue 3 asks for, on two cores."""


def write_rows(path: Path) -> None:
    """A file of NUM_SAMPLES conversations, no two alike."""
    choice = random.Random(5)
    words = [f"word{number}" for number in range(2000)]
    with path.open("w") as file:
        for number in range(NUM_SAMPLES):
            question = " ".join(choice.choices(words, k=choice.randint(3, 12)))
            answer = " ".join(choice.choices(words, k=choice.randint(1, 20)))
            turns = [{"role": "user", "content": f"{number}: {question}?"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


def index(source_path: Path, out: Path) -> int:
    """Plan and convert the file; the number of parts."""
    from vlm_catalogs.source import FileSource
    from vlm_prep.convert import ConvertTask
    from vlm_prep.part_store import LocalStore
    from vlm_prep.raw_sample import Limits
    from vlm_prep.readers import plan_files
    from vlm_prep.workers import run_tasks

    source = FileSource(name="rows", weight=1.0, path=str(source_path), format=None, origin="bench")
    parts = plan_files(source, "jsonl")
    staging = out / "staging"
    staging.mkdir(parents=True)
    limits = Limits(max_sample_bytes=1 << 28)
    tasks = [
        ConvertTask(
            source=source,
            file_format="jsonl",
            part=part,
            store=LocalStore(out),
            layout=out / "layout",
            staging=staging,
            scratch=staging,
            limits=limits,
        )
        for part in parts
    ]
    run_tasks(convert_unsynced, tasks, num_workers=NUM_WORKERS, on_done=lambda _: None)
    return len(parts)


def main() -> None:
    """Print the JSON line."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        path = Path(name) / "rows.jsonl"
        write_rows(path)
        before, begin = os.times(), time.perf_counter()
        num_parts = index(path, Path(name) / "out")
        seconds, after = time.perf_counter() - begin, os.times()
        line = {
            "benchmark": "index JSONL samples without media, two processes",
            "unit": "s",
            "figure": round(seconds, 1),
            "limit": LIMIT_SECONDS,
            "samples": NUM_SAMPLES,
            "samples_per_second": round(NUM_SAMPLES / seconds),
            "cpu_seconds": round(sum(after[:4]) - sum(before[:4]), 1),
            "megabytes": round(path.stat().st_size / 1e6),
            "parts": num_parts,
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
        }
        shutil.rmtree(Path(name) / "out")
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
