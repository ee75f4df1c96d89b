"""One step of a run after another: its rows, the loop, the numbers that it leaves."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from vlm_train.attempt import Run
from vlm_train.epoch import EpochPart, plan_parts
from vlm_train.epoch_files import EpochFiles
from vlm_train.loop import seed_step
from vlm_train.moment import Moment
from vlm_train.open_store import fetch_metrics, num_workers, reads_since
from vlm_train.optimizer import set_lr
from vlm_train.planned_rows import PlannedRow
from vlm_train.rank_watch import RankWatch
from vlm_train.sample_loss import SampleLossLog
from vlm_train.step_metrics import step_metrics
from vlm_train.step_result import PendingStep, StepResult
from vlm_train.step_stream import Place, Step, encoded_steps
from vlm_train.validation import HeldOut, is_due


def is_past_end(run: Run, place: Place) -> bool:
    """True where there is no step at ``place``."""
    return place.step >= run.plan.total_steps if run.plan.is_exact else place.epoch >= run.plan.epochs


def validation_is_due(run: Run, place: Place) -> bool:
    """True where the held-out loss is measured before the step at ``place``."""
    return place.step == 0 or is_due(run.config, step=place.step, is_last=is_past_end(run, place))


def measure_held_out(run: Run, place: Place, watch: RankWatch) -> HeldOut:
    """What a validation before the step at ``place`` leaves, where one is due. All ranks must call it."""
    if run.validation is None or not validation_is_due(run, place):
        return HeldOut()
    began = time.perf_counter()
    metrics = run.validation.measure(watch.at).metrics()
    measured = time.perf_counter()
    answers = run.validation.answers(watch.at)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenStep:
    """A step that the device is at, or done with, and what is known of it already."""

    place: Place
    planned: list[PlannedRow]
    """The samples of this rank."""
    problems: list[str]
    """Which of them stand there blank, and why."""
    pending: PendingStep
    began: Moment
    waited: float
    """Seconds until its rows were there."""
    lr: float


def take_step(run: Run, steps: Iterator[Step], watch: RankWatch) -> TakenStep | None:
    """Take the next step, without waiting for the device; None when no step is left."""
    watch.at("waiting for the rows of the next step")
    began, began_waiting = run.trainer.now(), time.perf_counter()
    step = next(steps, None)
    if step is None:
        return None
    place = step.place
    watch.at(f"step {place.step + 1}")
    waited = time.perf_counter() - began_waiting
    factor = run.plan.factor(
        place.step, epoch=place.epoch, epoch_step=place.epoch_step, steps_of_epoch=place.steps_of_epoch
    )
    lr = set_lr(run.trainer.optimizer, factor)
    seed_step(run.config.train.seed or 0, place.step)
    pending = run.trainer.take_step(
        step.batches,
        groups=None if run.config.train.train_policy.balance_dp_token else step.groups,
        datasets=run.dataset_names,
        also=(len(step.problems), run.gauges.operations(step.batches), *reads_since(run.store)),
        report_routers=(place.step + 1) % run.config.custom.n_step_per_workload_report == 0,
    )
    return TakenStep(
        place=place,
        planned=step.samples,
        problems=step.problems,
        pending=pending,
        began=began,
        waited=waited,
        lr=lr,
    )


def read_step(
    run: Run, taken: TakenStep, lines: SampleLossLog, *, ask_others: bool = True
) -> tuple[dict[str, Any], StepResult]:
    """The numbers of a step, waiting for the device to be done with it; those of its samples go to ``lines``.

    All ranks must call it, unless they are not to be asked, which leaves out what did not decode elsewhere.
    """
    outcome = taken.pending.result()
    seconds = taken.pending.ended.seconds_since(taken.began)
    metrics = step_metrics(taken.place, outcome, lr=taken.lr, waited=taken.waited, seconds=seconds)
    num_problems, operations, *reads = outcome.also
    metrics.update(run.gauges.metrics(operations, seconds=seconds))
    metrics.update(fetch_metrics(reads))
    if num_problems:
        metrics["data/undecodable"] = run.ranks.gather(taken.problems) if ask_others else taken.problems
    if run.config.stream.log_sample_loss:
        lines.add(taken.place.epoch, taken.planned, outcome.samples)
    return metrics, outcome
