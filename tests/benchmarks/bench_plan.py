"""Planning packed epochs: speed and memory at 10 million samples of 100 datasets, and how full rows become.

Lengths are log-normal (sigma 0.8, mean 0.1 or 0.3 of the row of 4,096 tokens), uniform from 0.2 to 0.9 of it, or those
of the demo's samples in rows of 1,024; all seeded. Peers: first fit in order of arrival, one sample a row, best fit,
longest first, of all samples at once (the ceiling; in points of difference). The order is compared with hashing names.
One JSON line per figure; the plan runs in a process of its own, whose peak memory is that of the planning and its
tables. PLAN_SAMPLES changes the 10 million.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from synthetic_draws import dataset_to_draw

from vlm_catalogs.hashing import order_keys
from vlm_train.draws import DatasetToDraw, OrderSettings, mixed_keys
from vlm_train.epoch import DRAWS_PER_WINDOW, plan_parts
from vlm_train.pack import Packer

ROW = 4096
NUM_SAMPLES = int(os.environ.get("PLAN_SAMPLES", "10000000"))
NUM_DATASETS = 100
NUM_LENGTHS = 200_000
DEMO_ROW = 1024
Lengths = NDArray[np.int32]
DEMO = Path(__file__).parents[1] / "demo_data" / "jsonl"
DEMO_TOML = """
[custom]
include_video = true
[policy]
model_name_or_path = "{folder}/model"
model_max_length = {row}
[mix]
root = "{folder}/mixes"
shards = "{folder}/shards"
[[mix.source]]
name = "demo"
path = "{demo}"
"""


def log_normal(mean: float, count: int, seed: int = 0) -> Lengths:
    """``count`` lengths of that mean share of a row."""
    random = np.random.default_rng(seed)
    return random.lognormal(np.log(mean * ROW) - 0.32, 0.8, count).clip(1, ROW).astype(np.int32)


def dataset(number: int, size: int) -> DatasetToDraw:
    """A dataset of ``size`` samples in shards of 1,000."""
    keys = np.random.default_rng(number).integers(0, 2**64, size, np.uint64)
    tokens = log_normal(0.1, size, number)
    return dataset_to_draw(number, keys=keys, tokens=tokens, patches=tokens, samples_per_shard=1000, shards_per_part=50)


def plan() -> None:
    """Plan one epoch; print seconds to its first part and its last, GiB of the inputs and of all, and the fill."""
    mix = [dataset(number, NUM_SAMPLES // NUM_DATASETS) for number in range(NUM_DATASETS)]
    inputs = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, first, tokens, rows = time.perf_counter(), None, 0, 0
    for part in plan_parts(mix, epoch=0, order=OrderSettings(seed=0, rows_per_step=64, pack_tokens=ROW)):
        first = first or time.perf_counter() - began
        tokens += int(part.table["tokens"].to_numpy().astype(np.int64).sum())
        rows += 64 * (0 if part.table.num_rows == 0 else len(np.unique(part.table["step"].to_numpy())))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([first, seconds, inputs / 2**20, peak / 2**20, tokens / (rows * ROW)]))


def best_fit(lengths: Lengths, window: int, *, row: int = ROW) -> float:
    """Fill of rows, packed window by window."""
    packer = Packer(row)
    num_rows = 0
    for begin in range(0, len(lengths), window):
        draws = np.arange(begin, min(begin + window, len(lengths)))
        num_rows += len(np.unique(packer.add(draws, lengths[draws], is_last=draws[-1] == len(lengths) - 1).rows))
    return float(lengths.sum(dtype=np.int64) / (num_rows * row))


def first_fit(lengths: Lengths, *, row: int = ROW) -> float:
    """Fill of rows when each sample goes into the first open row of 64 that holds it; the oldest leaves."""
    rests: list[int] = []
    num_rows = 0
    for length in lengths.tolist():
        place = next((place for place, rest in enumerate(rests) if rest >= length), None)
        if place is None:
            num_rows += 1
            rests.append(row - length)
            rests = rests[-64:]
        else:
            rests[place] -= length
    return float(lengths.sum(dtype=np.int64) / (num_rows * row))


def show(figure: str, value: float, unit: str, **more: object) -> None:
    """One JSON line."""
    print(json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, **more}), flush=True)


def demo_lengths(row: int) -> Lengths:
    """Lengths drawn evenly from those of the demo's samples, as build-mix measures them for a tiny model."""
    from vlm_catalogs.manifest import current_mix
    from vlm_prep.cli import main as prep
    from vlm_train.make_tiny import make_tiny

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_tiny("qwen3_vl", folder / "model")
        (folder / "demo.toml").write_text(DEMO_TOML.format(folder=folder, demo=DEMO, row=row))
        with redirect_stdout(sys.stderr):
            assert prep(["build-mix", str(folder / "demo.toml")]) == 0
        selection = pq.read_table(current_mix(folder / "mixes" / "demo") / "selection.parquet")
    tokens = selection.filter(selection["selected"])["total_tokens"].to_numpy()
    return np.random.default_rng(0).choice(tokens, NUM_LENGTHS).astype(np.int32)


def show_fill(name: str, lengths: Lengths, *, row: int = ROW) -> None:
    """How full rows become, against the peers."""
    ours, first = best_fit(lengths, DRAWS_PER_WINDOW, row=row), first_fit(lengths, row=row)
    whole = best_fit(lengths, len(lengths), row=row)
    alone = float(lengths.mean() / row)
    show(
        f"row fill, {name}",
        100 * ours,
        "%",
        peer="first fit",
        peer_value=round(100 * first, 4),
        ratio=round(ours / first, 4),
    )
    show(
        f"row fill, {name}",
        100 * ours,
        "%",
        peer="one sample a row",
        peer_value=round(100 * alone, 4),
        ratio=round(ours / alone, 4),
    )
    show(
        f"row fill, {name}",
        100 * ours,
        "%",
        peer="all at once",
        peer_value=round(100 * whole, 4),
        ratio=round(ours / whole, 4),
        points_below=round(100 * (whole - ours), 4),
    )


def show_order() -> None:
    """Ordering a million samples by mixed keys against hashing every name."""
    names = [f"dataset/part-000.tar/{number:09d}" for number in range(1_000_000)]
    keys = np.random.default_rng(0).integers(0, 2**64, len(names), np.uint64)
    times = []
    for work in (
        lambda: np.argsort(mixed_keys(keys, 0, 0, "a")),
        lambda: np.argsort(np.array(order_keys((0, 0, "a"), names), np.uint64)),
    ):
        best = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            best.append(time.perf_counter() - began)
        times.append(sorted(best)[1])
    show(
        "order of 1,000,000 samples",
        times[0],
        "s",
        peer="a hash of every name",
        peer_value=round(times[1], 4),
        ratio=round(times[1] / times[0], 2),
    )


def main() -> None:
    """Print every figure."""
    if sys.argv[1:] == ["plan"]:
        plan()
        return
    show_order()
    show_fill("log-normal, mean 0.1", log_normal(0.1, NUM_LENGTHS))
    show_fill("log-normal, mean 0.3", log_normal(0.3, NUM_LENGTHS))
    uniform = np.random.default_rng(0).uniform(0.2, 0.9, NUM_LENGTHS)
    show_fill("uniform 0.2-0.9", (uniform * ROW).astype(np.int32))
    show_fill(f"the demo's lengths, rows of {DEMO_ROW}", demo_lengths(DEMO_ROW), row=DEMO_ROW)
    found = subprocess.run([sys.executable, __file__, "plan"], check=True, capture_output=True, text=True)
    first, seconds, inputs, peak, filled = json.loads(found.stdout)
    about = {"samples": NUM_SAMPLES, "datasets": NUM_DATASETS}
    show("plan of a packed epoch", seconds, "s", peer="limit", peer_value=60, ratio=round(60 / seconds, 2), **about)
    show("first part of it", first, "s", peer="limit", peer_value=10, ratio=round(10 / first, 2), **about)
    show(
        "peak memory of it",
        peak,
        "GiB",
        peer="limit",
        peer_value=2,
        ratio=round(2 / peak, 2),
        inputs_peak_gib=round(inputs, 3),
        **about,
    )
    show("its row fill", 100 * filled, "%", **about)


if __name__ == "__main__":
    main()
