"""What it costs to keep the loss of every sample, at most 1 % of a step: sums, lines, metrics, files.

A step of a tiny Qwen3-VL on four packed rows of 1,024 tokens, one thread, with the losses of its samples kept against
the same step with a single sum, as a loop without per-sample losses takes it. The machine may be busy: both are CPU
seconds of this process, medians of ROUNDS (BENCH_ROUNDS, 5) interleaved rounds of ten steps, in which the file is
written once; then what is done for the samples alone, as a share of the step. One JSON line per figure.
"""

import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_packing import ROWS, packed_rows, print_figure, samples_of, trainer_of

from vlm_train import loop
from vlm_train.make_tiny import make_tiny
from vlm_train.models import load_family
from vlm_train.models.family import Batch, EncodedSample
from vlm_train.planned_rows import PlannedRow
from vlm_train.sample_loss import SampleLossLog
from vlm_train.step_metrics import dataset_metrics
from vlm_train.step_result import dataset_sums, sample_losses

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
STEPS_PER_ROUND = STEPS_PER_WRITE = 10


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        make_tiny("qwen3_vl", folder)
        bench(folder, Path(scratch))


def bench(folder: Path, scratch: Path) -> None:
    family: Any = load_family(str(folder), "qwen3_vl")
    rows = packed_rows(samples_of(1024, ROWS, family.placeholder_ids[0]), 1024)
    batches = [family.collate([row]) for row in rows]
    planned = [_planned(one, row, position) for row, some in enumerate(rows) for position, one in enumerate(some)]
    names = sorted({sample.dataset for row in rows for sample in row})
    trainer = trainer_of(folder, family)
    log = SampleLossLog(scratch, attempt=1, steps_per_write=STEPS_PER_WRITE)

    def kept() -> None:
        outcome = trainer.take_step(batches, datasets=names).result()
        dataset_metrics(outcome.datasets)
        log.add(0, planned, outcome.samples)

    def one_sum() -> None:
        with _OneSum():
            trainer.take_step([_nameless(batch) for batch in batches]).result()

    def alone() -> None:
        for batch in batches:
            loop.sample_sums(torch.ones(len(batch.targets_N)), batch.samples_N, num_samples=len(batch.sample_ids))
        sums_S = torch.ones(len(planned), dtype=torch.float64)
        dataset_sums(batches, sums_S, datasets=names)
        log.add(0, planned, sample_losses(batches, sums_S.tolist()))

    seconds = _cpu_seconds({"kept": kept, "one sum": one_sum, "alone": alone})
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    costs = [one / other - 1 for one, other in zip(seconds["kept"], seconds["one sum"], strict=True)]
    about: dict[str, Any] = {"unit": "CPU s a step", "peer_name": "step with one sum", "peer": medians["one sum"]}
    print_figure(
        figure="step with per-sample losses", ours=medians["kept"], ratio=medians["kept"] / medians["one sum"],
        median_of_paired_costs=statistics.median(costs), samples=len(planned), **about,
    )  # fmt: skip
    print_figure(
        figure="what is done for per-sample losses", ours=medians["alone"], limit=0.01,
        ratio=medians["alone"] / medians["one sum"], samples=len(planned), **about,
    )  # fmt: skip


def _cpu_seconds(steps: dict[str, Any]) -> dict[str, list[float]]:
    """CPU seconds of a step of each kind in each round, one warm-up round left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS + 1):
        for name, step in steps.items():
            began = time.process_time()
            for _ in range(STEPS_PER_ROUND):
                step()
            if number:
                seconds[name].append((time.process_time() - began) / STEPS_PER_ROUND)
    return seconds


class _OneSum:
    """Inside, the loss of a micro-batch is a single sum."""

    def __enter__(self) -> None:
        self._before = loop.sample_sums
        loop.sample_sums = lambda losses_N, _samples, *, num_samples: losses_N.detach().double().sum().reshape(1)

    def __exit__(self, *_: object) -> None:
        loop.sample_sums = self._before


def _nameless(batch: Batch) -> Batch:
    """The batch as one sample."""
    total = (sum(batch.lengths),)
    return replace(
        batch,
        datasets=("",),
        sample_ids=("all",),
        lengths=total,
        rows=(0,),
        samples_N=torch.zeros_like(batch.samples_N),
    )


def _planned(sample: EncodedSample, row: int, position: int) -> PlannedRow:
    return PlannedRow(
        step=0, row=row, position=position, dataset=sample.dataset, sample_id=sample.sample_id, sample_key=row,
        alternative=0, part="p", shard=0, index_in_shard=0, tokens=1, supervised_tokens=1, vision_patches=0,
        status="planned",
    )  # fmt: skip


if __name__ == "__main__":
    main()
