"""The story of ``vlm-train run``: check, load, plan, steps, checkpoints, export."""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlm_catalogs.config import Config, describe_mode
from vlm_catalogs.console import be_quiet, fact, note, result
from vlm_train.checkpoint import RunState, checkpoint_path, load_tensors, save_checkpoint
from vlm_train.draws import DatasetToDraw
from vlm_train.epoch import EpochPart, plan_parts
from vlm_train.epoch_files import EpochFiles
from vlm_train.export import adapter_path, export_path, export_weights
from vlm_train.load import load_family_of, load_trainer, refuse_leaking_rows
from vlm_train.loggers import missing_loggers
from vlm_train.loop import SampleLoss, StepResult, Trainer, seed_step
from vlm_train.lora import export_adapter
from vlm_train.models.family import Family
from vlm_train.models.pretrained import hush_progress_bars
from vlm_train.open_mix import OpenMix, datasets_to_draw, load_renderers, open_mix
from vlm_train.open_store import fetch_metrics, num_workers, open_store
from vlm_train.optimizer import set_lr
from vlm_train.ranks import Ranks, join, leave, ranks_of
from vlm_train.run_plan import RunPlan, plan_run
from vlm_train.sample_loss import SampleLossLog
from vlm_train.sample_store import SampleStore
from vlm_train.shard_parameters import full_state_dict
from vlm_train.start import (
    Start,
    decide_start,
    refuse_private_folder,
    rows_of_run,
    run_fingerprint,
    write_run_files,
)
from vlm_train.step_reports import open_reports
from vlm_train.step_stream import Place, Step, encoded_steps
from vlm_train.stop_request import StopRequest
from vlm_train.stream import RowEncoder, planned_samples

SIGNAL_EXIT = 128
"""A run that a signal ended exits with this plus the signal's number, as shells do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that the steps of one attempt need."""

    config: Config
    ranks: Ranks
    plan: RunPlan
    start: Start
    datasets: list[DatasetToDraw]
    fingerprint: dict[str, Any]
    trainer: Trainer
    family: Family
    encoder: RowEncoder
    store: SampleStore

    @property
    def output_dir(self) -> Path:
        """Where the run writes."""
        return self.start.output_dir

    def state(self, place: "Place") -> RunState:
        """The state before the step at ``place``."""
        return RunState(step=place.step, epoch=place.epoch, epoch_step=place.epoch_step, fingerprint=self.fingerprint)


def run_training(config: Config, *, resume: bool) -> int:
    """Train as ``config`` says, from the start or from the newest checkpoint; the exit code.

    One of the processes of a run, or the only one: the environment says which.
    """
    ranks = ranks_of(config)
    if not ranks.is_first:
        be_quiet()
    join(ranks)
    try:
        return _run_rank(config, ranks, resume=resume)
    finally:
        leave(ranks)


def _run_rank(config: Config, ranks: Ranks, *, resume: bool) -> int:
    for text in (*config.notes, *missing_loggers(config.logging.logger)):
        note(text)
    mix = open_mix(config)
    datasets = datasets_to_draw(mix)
    plan = plan_run(
        config,
        datasets,
        num_ranks=ranks.size,
        known_rows=rows_of_run(config) if resume or config.train.resume else None,
    )
    rows = plan.order.rows_per_step
    if rows != config.train.train_batch_per_replica * ranks.size:
        note(f"{rows} rows a step, {rows // ranks.size} for each of {ranks.size} ranks, whatever the batch per replica")
    fingerprint = run_fingerprint(config, mix.manifest, rows_per_step=plan.order.rows_per_step)
    start = decide_start(config, resume=resume, fingerprint=fingerprint)
    ranks.wait()  # all have looked before the first one writes
    fact(f"mode: {describe_mode(config)}")
    fact(f"mix: {mix.folder}, {len(datasets)} datasets")
    fact(f"plan: {plan.describe()}")
    if start.note:
        note(start.note)
    hush_progress_bars()
    set_determinism(config)
    with closing(open_store(config, mix, plan, ranks)) as store:
        return _train(_load(config, plan, start, datasets, fingerprint, mix, store, ranks))


def set_determinism(config: Config) -> None:
    """Seed what loading draws; with ``deterministic`` only kernels that give the same bits each time."""
    seed_step(config.train.seed or 0, 0)
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, or refuses
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def _load(
    config: Config,
    plan: RunPlan,
    start: Start,
    datasets: list[DatasetToDraw],
    fingerprint: dict[str, Any],
    mix: OpenMix,
    store: SampleStore,
    ranks: Ranks,
) -> Run:
    family = load_family_of(config)
    if config.train.sequence_packing:
        movement = refuse_leaking_rows(config, family)
        fact(f"packing: samples in one row do not see each other (leak probe: {movement.share:.1g} of 1)")
    encoder = RowEncoder(store, family, load_renderers(config, mix), max_bad_samples=config.stream.max_bad_samples)
    trainer, trainable = load_trainer(config, family, ranks)
    for line in trainable.lines():
        fact(line)
    if start.checkpoint is not None:
        load_tensors(
            start.checkpoint,
            module=trainer.module,
            optimizer=trainer.optimizer,
            only_trainable=config.policy.lora is not None,
            ranks=ranks,
        )
    return Run(
        config=config,
        ranks=ranks,
        plan=plan,
        start=start,
        datasets=datasets,
        fingerprint=fingerprint,
        trainer=trainer,
        family=family,
        encoder=encoder,
        store=store,
    )


def _train(run: Run) -> int:
    if run.ranks.is_first:
        write_run_files(run.config, run.start, run.fingerprint)
    run.ranks.wait()
    refuse_private_folder(run.start)
    state = run.start.state
    next_place = Place() if state is None else Place(step=state.step, epoch=state.epoch, epoch_step=state.epoch_step)
    reports = open_reports(run.config, run.output_dir, total_steps=run.plan.total_steps)
    is_whole = False
    with (
        reports if run.ranks.is_first else nullcontext() as shown,
        StopRequest() as stop,
        _sample_losses(run, attempt=run.ranks.largest(shown.attempt if shown else 0)) as lines,
        closing(_encoded_steps(run, next_place)) as steps,
    ):
        while not (is_whole := _is_whole(run, next_place)) and not _all_stop(run, stop):
            taken = _one_step(run, steps, lines)
            if taken is None:  # epochs of their own lengths came to fewer steps than the first promised
                is_whole = True
                break
            metrics, next_place = taken
            if shown is not None:
                shown.show(metrics)
            if run.config.train.ckpt.enable_checkpoint and next_place.step % run.config.train.ckpt.save_freq == 0:
                _save(run, next_place)
    if stop.signal is not None and not is_whole:
        return _stopped(run, next_place, stop)
    return _finish(run, next_place)


def _is_whole(run: Run, place: Place) -> bool:
    """Is there no step at ``place``?"""
    return place.step >= run.plan.total_steps if run.plan.is_exact else place.epoch >= run.plan.epochs


def _all_stop(run: Run, stop: StopRequest) -> bool:
    """True once any rank was asked to stop: all leave after the same step."""
    asked = run.ranks.largest(stop.signal or 0)
    if asked and stop.signal is None:
        stop.signal = signal.Signals(asked)
    return bool(asked)


def _sample_losses(run: Run, *, attempt: int) -> SampleLossLog:
    every = run.config.logging.log_interval
    return SampleLossLog(run.output_dir, attempt=attempt, steps_per_write=every, rank=run.ranks.rank)


def _encoded_steps(run: Run, first: Place) -> Generator[Step]:
    return encoded_steps(
        first,
        plan=run.plan,
        files_of=lambda epoch: EpochFiles(run.output_dir, epoch, plan=partial(_planned_parts, run, epoch)),
        ranks=run.ranks,
        encode=run.encoder.encode,
        num_workers=num_workers(run.config),
        store=run.store,
    )


def _planned_parts(run: Run, epoch: int) -> Iterator[EpochPart]:
    return plan_parts(run.datasets, epoch=epoch, order=run.plan.order)


def _one_step(run: Run, steps: Iterator[Step], lines: SampleLossLog) -> tuple[dict[str, Any], Place] | None:
    """Take the next step: its metrics, and the place of the one that follows; None when no step is left."""
    began = time.perf_counter()
    step = next(steps, None)
    if step is None:
        return None
    place, rows = step.place, step.rows
    done = place.step
    size = run.plan.mini_batch
    batches = [
        run.family.collate([row.samples for row in rows[begin : begin + size]]) for begin in range(0, len(rows), size)
    ]
    waited = time.perf_counter() - began
    factor = run.plan.factor(done, epoch=place.epoch, epoch_step=place.epoch_step, steps_of_epoch=place.steps_of_epoch)
    lr = set_lr(run.trainer.optimizer, factor)
    seed_step(run.config.train.seed or 0, done)
    outcome = run.trainer.take_step(batches, step=done + 1)
    metrics = step_metrics(run.state(place), outcome, lr=lr, waited=waited, seconds=time.perf_counter() - began)
    if (done + 1) % run.config.custom.n_step_per_workload_report == 0:
        health = run.trainer.routers.report()
        metrics.update(health.metrics() if health else {})
    metrics.update(dataset_metrics(run.ranks.gather(list(outcome.samples))))
    metrics.update(fetch_metrics(run.store, run.ranks))
    problems = run.ranks.gather([problem for row in rows for problem in row.problems])
    if problems:
        metrics["data/undecodable"] = problems
    if run.config.stream.log_sample_loss:
        lines.add(metrics["epoch"], planned_samples(rows), outcome.samples)
    return metrics, place.next()


def step_metrics(before: RunState, outcome: StepResult, *, lr: float, waited: float, seconds: float) -> dict[str, Any]:
    """The line of one step. ``step`` counts from 1; ``epoch`` and ``epoch_step`` are those of the epoch table."""
    return {
        "step": before.step + 1,
        "epoch": before.epoch,
        "epoch_step": before.epoch_step,
        "train/loss": outcome.loss,
        "train/lr": lr,
        "train/grad_norm": outcome.grad_norm,
        "train/supervised_tokens": outcome.num_supervised_tokens,
        "train/useful_tokens_per_second": outcome.num_tokens / seconds,
        "train/padding_share": outcome.num_padding / max(1, outcome.num_tokens + outcome.num_padding),
        "data/wait_seconds": waited,
    }


def dataset_metrics(samples: Sequence[SampleLoss]) -> dict[str, float]:
    """For each dataset of a step: mean loss over its supervised tokens (where it has any), tokens, samples."""
    by_name: dict[str, list[SampleLoss]] = defaultdict(list)
    for sample in samples:
        by_name[sample.dataset].append(sample)
    metrics: dict[str, float] = {}
    for name in sorted(by_name):
        supervised = sum(sample.num_supervised_tokens for sample in by_name[name])
        if supervised:
            metrics[f"loss/{name}"] = sum(sample.loss_sum for sample in by_name[name]) / supervised
        metrics[f"tokens/{name}"] = sum(sample.num_tokens for sample in by_name[name])
        metrics[f"samples/{name}"] = len(by_name[name])
    return metrics


def _save(run: Run, place: Place) -> Path:
    path = checkpoint_path(run.output_dir, place.step)
    exists = path.exists()
    run.ranks.wait()  # all have looked before anyone writes
    if exists:
        return path
    return save_checkpoint(
        run.output_dir,
        run.state(place),
        module=run.trainer.module,
        optimizer=run.trainer.optimizer,
        max_keep=run.config.train.ckpt.max_keep,
        only_trainable=run.config.policy.lora is not None,
        ranks=run.ranks,
    )


def _stopped(run: Run, place: Place, stop: StopRequest) -> int:
    assert stop.signal is not None
    config = run.config
    saved = "nothing was saved: train.ckpt.enable_checkpoint or train.save_ckpt_at_exit is false"
    if config.train.ckpt.enable_checkpoint and config.train.save_ckpt_at_exit:
        saved = f"saved {_save(run, place)}; go on with: vlm-train run {config.path} --resume"
    fact(f"stopped by {stop.signal.name} after step {place.step} of {run.plan.total_steps}; {saved}")
    return SIGNAL_EXIT + stop.signal


def _finish(run: Run, place: Place) -> int:
    done, total = place.step, run.plan.total_steps if run.plan.is_exact else place.step
    ckpt = run.config.train.ckpt
    fact(f"trained {done} of {total} steps; metrics: {run.output_dir / 'metrics.jsonl'}")
    if ckpt.enable_checkpoint and run.config.train.save_ckpt_at_exit:
        fact(f"checkpoint: {_save(run, place)}")
    if ckpt.export_safetensors:
        weights = full_state_dict(run.trainer.module, ranks=run.ranks)
        if run.ranks.is_first:
            _export(run, done, weights)
        run.ranks.wait()
    return 0


def _export(run: Run, done: int, weights: dict[str, Tensor]) -> None:
    """Write what is not there yet: the model, and the adapters where there are any."""
    module, config = run.trainer.module, run.config
    folder, adapters = export_path(run.output_dir, done), adapter_path(run.output_dir, done)
    if config.policy.lora is not None and not adapters.exists():
        base = config.policy.model_name_or_path
        fact(f"adapters: {export_adapter(module, weights, base=base, folder=adapters)}")
    result(f"model: {folder if folder.exists() else export_weights(module, weights, config, folder)}")
