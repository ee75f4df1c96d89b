"""One step of a run after another: its rows, the loop, the numbers that it leaves."""

import time
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

from vlm_train.attempt import Run
from vlm_train.epoch import EpochPart, plan_parts
from vlm_train.epoch_files import EpochFiles
from vlm_train.loop import seed_step
from vlm_train.open_store import fetch_metrics, num_workers
from vlm_train.optimizer import set_lr
from vlm_train.sample_loss import SampleLossLog
from vlm_train.step_metrics import dataset_metrics, step_metrics
from vlm_train.step_stream import Place, Step, encoded_steps
from vlm_train.validation import HeldOut, is_due


def is_past_end(run: Run, place: Place) -> bool:
    """True where there is no step at ``place``."""
    return place.step >= run.plan.total_steps if run.plan.is_exact else place.epoch >= run.plan.epochs


def measure_held_out(run: Run, place: Place) -> HeldOut:
    """What a validation before the step at ``place`` leaves, where one is due. All ranks must call it."""
    due = place.step == 0 or is_due(run.config, step=place.step, is_last=is_past_end(run, place))
    if run.validation is None or not due:
        return HeldOut()
    began = time.perf_counter()
    metrics = run.validation.measure().metrics()
    measured = time.perf_counter()
    answers = run.validation.answers()
    run.store.take_reads()  # else the next step would count them as its own
    took = {"validation/seconds": measured - began}
    if answers:
        took["validation/answer_seconds"] = time.perf_counter() - measured
    return HeldOut(metrics={**metrics, **took}, answers=answers)


def steps_of_run(run: Run, first: Place) -> Generator[Step]:
    """The steps of this attempt from ``first`` on, their batches made by threads ahead of use."""
    return encoded_steps(
        first,
        plan=run.plan,
        files_of=lambda epoch: EpochFiles(run.output_dir, epoch, plan=partial(_planned_parts, run, epoch)),
        ranks=run.ranks,
        encode=run.encoder.encode,
        collate=run.family.collate,
        num_workers=num_workers(run.config),
        store=run.store,
    )


def _planned_parts(run: Run, epoch: int) -> Iterator[EpochPart]:
    return plan_parts(run.datasets, epoch=epoch, order=run.plan.order)


def take_step(run: Run, steps: Iterator[Step], lines: SampleLossLog) -> tuple[dict[str, Any], Place] | None:
    """Take the next step: its metrics, and the place of the one that follows; None when no step is left."""
    began = time.perf_counter()
    step = next(steps, None)
    if step is None:
        return None
    place = step.place
    done = place.step
    waited = time.perf_counter() - began
    factor = run.plan.factor(done, epoch=place.epoch, epoch_step=place.epoch_step, steps_of_epoch=place.steps_of_epoch)
    lr = set_lr(run.trainer.optimizer, factor)
    seed_step(run.config.train.seed or 0, done)
    outcome = run.trainer.take_step(step.batches, step=done + 1)
    seconds = time.perf_counter() - began
    metrics = step_metrics(run.state(place), outcome, lr=lr, waited=waited, seconds=seconds)
    metrics.update(run.gauges.metrics(step.batches, seconds=seconds))
    if (done + 1) % run.config.custom.n_step_per_workload_report == 0:
        health = run.trainer.routers.report()
        metrics.update(health.metrics() if health else {})
    metrics.update(dataset_metrics(run.ranks.gather(list(outcome.samples))))
    metrics.update(fetch_metrics(run.store, run.ranks))
    problems = run.ranks.gather(step.problems)
    if problems:
        metrics["data/undecodable"] = problems
    if run.config.stream.log_sample_loss:
        lines.add(metrics["epoch"], step.samples, outcome.samples)
    return metrics, place.next()
