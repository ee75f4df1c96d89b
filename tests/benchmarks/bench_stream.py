"""Samples a second from shards, against a plain loop over streaming.StreamingDataset; and waiting for data.

Both read every sample of the same local shards once, in shuffled order, in a fresh process, without decoding media; the
whole epoch counts, planning, shuffling and comparing shards with their hashes included, imports not. With 2 workers:
ours are threads, theirs processes of a torch DataLoader. Medians of BENCH_ROUNDS (3) interleaved rounds. The ratio of
CPU seconds stands beside that of the clock, which other work on the machine disturbs.

Waiting: the demo's pictures and films through the whole pipeline, eight samples a step, encoded by two threads while a
sleep of 0.5 s stands for each step; the first step is printed apart. One JSON line per figure.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
NUM_SAMPLES = 8_000
MEDIUM_BYTES = 30_000
SAMPLES_PER_SHARD = 1_000
ROWS_PER_STEP = 16
NUM_STEPS = 30
STEP_SECONDS = 0.5


Took = tuple[float, float, int]
"""Seconds, CPU seconds of all processes, bytes of media."""


def cpu_seconds() -> float:
    """Of this process and of the children that have ended."""
    return sum(os.times()[:4])


def make_shards(folder: Path) -> None:
    """A mix of one dataset, and the index that plain streaming reads."""
    from tests.train.small_shards import PART, make_mix

    from vlm_catalogs.layout import read_part
    from vlm_prep.mds_shard import shard_index_entry

    mix = make_mix(folder, {"pictures": (NUM_SAMPLES, MEDIUM_BYTES)}, samples_per_shard=SAMPLES_PER_SHARD)
    record = read_part(mix.part("pictures", PART))
    shards = [
        shard_index_entry(basename=f"parts/{PART}/{one.name}", num_bytes=one.bytes, num_samples=number)
        for one, number in zip(record.shards, record.shard_samples, strict=True)
    ]
    (mix.layout(mix.dataset("pictures")) / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))


def open_made(folder: Path) -> Any:
    from tests.train.small_shards import describe_mix

    return describe_mix(folder, {"pictures": (NUM_SAMPLES, MEDIUM_BYTES)})


def read_ours(folder: Path, workers: int) -> Took:
    """Every sample once, by this project."""
    from tests.train.small_shards import dataset_to_draw

    from vlm_train.draws import OrderSettings
    from vlm_train.epoch import plan_parts
    from vlm_train.planned_rows import planned_rows
    from vlm_train.sample_store import SampleStore
    from vlm_train.stream import made_in_order, steps_of

    mix = open_made(folder)
    to_draw = dataset_to_draw(mix, "pictures", NUM_SAMPLES)
    began, cpu, num_bytes = time.perf_counter(), cpu_seconds(), 0
    with closing(SampleStore(mix)) as store:
        parts = plan_parts([to_draw], epoch=0, order=OrderSettings(seed=1, rows_per_step=ROWS_PER_STEP))
        rows = (row for part in parts for row in planned_rows(part.table))
        steps = steps_of(rows, rows_per_step=ROWS_PER_STEP)
        read = lambda row: [store.read(line) for line in row if line.status == "planned"]  # noqa: E731
        for step in made_in_order(steps, read, list, num_workers=workers):
            num_bytes += sum(len(sample.media) for samples in step for sample in samples)
    return time.perf_counter() - began, cpu_seconds() - cpu, num_bytes


def read_plainly(folder: Path, workers: int) -> Took:
    """Every sample once, by a plain loop."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    began, cpu, num_bytes = time.perf_counter(), cpu_seconds(), 0
    dataset = StreamingDataset(
        local=str(folder / "shards" / "pictures"), shuffle=True, batch_size=ROWS_PER_STEP, num_canonical_nodes=1
    )
    if workers == 0:
        num_bytes = sum(len(sample["media"]) for sample in dataset)
    else:
        loader = DataLoader(dataset, batch_size=ROWS_PER_STEP, num_workers=workers, collate_fn=list)
        num_bytes = sum(len(sample["media"]) for samples in loader for sample in samples)
    return time.perf_counter() - began, cpu_seconds() - cpu, num_bytes


def bench_speed(folder: Path) -> None:
    ways = [(way, workers) for workers in (0, 2) for way in ("ours", "plain")]
    seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    cpu: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, workers in ways:
            command = [sys.executable, __file__, way, str(workers), str(folder)]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            took, cpu_took, num_bytes = json.loads(found.stdout.splitlines()[-1])
            assert num_bytes == NUM_SAMPLES * MEDIUM_BYTES, (way, workers, num_bytes)
            seconds[way, workers].append(took)
            cpu[way, workers].append(cpu_took)
    for workers, wanted in ((0, 3.0), (2, 1.5)):
        ours, plain = (NUM_SAMPLES / statistics.median(seconds[way, workers]) for way in ("ours", "plain"))
        cpu_ratio = statistics.median(cpu["plain", workers]) / statistics.median(cpu["ours", workers])
        show(
            f"samples from shards, {workers} workers", ours, "samples/s", peer="streaming.StreamingDataset",
            peer_value=round(plain, 1), ratio=round(ours / plain, 2), wanted_ratio=wanted, rounds=ROUNDS,
            ratio_of_cpu_seconds=round(cpu_ratio, 2),
        )  # fmt: skip


TOML = """
[custom]
include_video = true
[train]
epoch = 99
train_batch_per_replica = 8
output_dir = "{folder}/run"
[train.train_policy]
mini_batch = 4
[policy]
model_name_or_path = "{folder}/model"
model_max_length = 1024
[mix]
root = "{folder}/mixes"
shards = "{folder}/demo_shards"
[stream]
num_workers = 2
[[mix.source]]
name = "demo"
path = "{demo}"
"""


def bench_waiting(folder: Path) -> None:
    """The share of the time that steps wait for their rows."""
    import torch

    from vlm_catalogs.config import load_config
    from vlm_prep.cli import main as prep
    from vlm_train.make_tiny import make_tiny
    from vlm_train.models import load_family
    from vlm_train.open_mix import datasets_to_draw, load_renderers, open_mix
    from vlm_train.open_store import num_workers
    from vlm_train.ranks import ALONE
    from vlm_train.run_plan import plan_run
    from vlm_train.sample_store import SampleStore
    from vlm_train.step_stream import Place, encoded_steps
    from vlm_train.stream import RowEncoder

    torch.set_num_threads(1)
    make_tiny("qwen3_vl", folder / "model")
    toml = folder / "run.toml"
    toml.write_text(TOML.format(folder=folder, demo=ROOT / "tests" / "demo_data" / "jsonl"))
    assert prep(["build-mix", str(toml)]) == 0
    config = load_config(toml)
    mix = open_mix(config)
    datasets = datasets_to_draw(mix)
    plan = plan_run(config, datasets)
    family: Any = load_family(config.policy.model_name_or_path, "qwen3_vl")
    with closing(SampleStore(mix)) as store:
        encoder = RowEncoder(store, family, load_renderers(config, mix), max_bad_samples=0)
        steps = encoded_steps(
            Place(), plan=plan, files_of=partial(epoch_files, folder, datasets, plan), ranks=ALONE,
            encode=encoder.encode, collate=family.collate, num_workers=num_workers(config), store=store,
        )  # fmt: skip
        with closing(steps):
            waits, tokens = zip(*timed_steps(steps), strict=True)
    waiting = sum(waits[1:])
    share = waiting / (waiting + STEP_SECONDS * len(waits[1:]))
    show(
        f"waiting for data at steps of {STEP_SECONDS} s", 100 * share, "%", peer="limit", peer_value=2,
        ratio=round(2 / max(1e-9, 100 * share), 1), steps=len(waits) - 1, first_wait_seconds=round(waits[0], 2),
        longest_wait_seconds=round(max(waits[1:]), 3), tokens_per_step=round(statistics.mean(tokens)),
    )  # fmt: skip


def epoch_files(folder: Path, datasets: Any, plan: Any, epoch: int) -> Any:
    from vlm_train.epoch import plan_parts
    from vlm_train.epoch_files import EpochFiles

    return EpochFiles(folder / "run", epoch, plan=partial(plan_parts, datasets, epoch=epoch, order=plan.order))


def timed_steps(steps: Iterator[Any]) -> Iterator[tuple[float, int]]:
    """Seconds that each step waited for its micro-batches, and its tokens."""
    for _ in range(NUM_STEPS + 1):
        began = time.perf_counter()
        batches = next(steps).batches
        yield time.perf_counter() - began, sum(batch.num_tokens for batch in batches)
        time.sleep(STEP_SECONDS)


def show(figure: str, value: float, unit: str, **more: object) -> None:
    """One JSON line."""
    print(json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, **more}), flush=True)


def main() -> None:
    """Print every figure; with arguments, read once and print what it took."""
    if len(sys.argv) == 4:
        way, workers, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
        print(json.dumps((read_ours if way == "ours" else read_plainly)(folder, workers)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        make_shards(Path(scratch) / "speed")
        bench_speed(Path(scratch) / "speed")
        (Path(scratch) / "waiting").mkdir()
        bench_waiting(Path(scratch) / "waiting")


if __name__ == "__main__":
    main()
