"""The story of ``vlm-train run``: check, load, plan, steps, checkpoints, export."""

import signal
from contextlib import closing, nullcontext
from pathlib import Path

from vlm_catalogs.config import Config, describe_mode
from vlm_catalogs.console import be_quiet, fact, note
from vlm_catalogs.errors import StorageError
from vlm_train.attempt import Run, load_run, set_determinism
from vlm_train.checkpoint import remove_oldest
from vlm_train.finish import end_stopped, end_whole
from vlm_train.loggers import missing_loggers
from vlm_train.models.pretrained import hush_progress_bars
from vlm_train.open_mix import datasets_to_draw, open_mix
from vlm_train.open_store import open_store
from vlm_train.rank_watch import RankWatch
from vlm_train.ranks import Ranks, join, leave, ranks_of
from vlm_train.run_checkpoints import save_is_due, save_run, unused_settings
from vlm_train.run_plan import plan_run
from vlm_train.run_steps import is_past_end, measure_held_out, steps_of_run, take_step, validation_is_due
from vlm_train.sample_loss import SampleLossLog
from vlm_train.start import decide_start, refuse_private_folder, rows_of_run, run_fingerprint, write_run_files
from vlm_train.step_reader import StepReader
from vlm_train.step_reports import open_reports
from vlm_train.step_stream import Place
from vlm_train.stop_request import StopRequest
from vlm_train.uploads import Uploads, open_uploads
from vlm_train.validation import describe_held_out

SAVE_FAILED = 1 << 20
"""Above every signal's number."""


def run_training(config: Config, *, resume: bool) -> int:
    """Train as ``config`` says, from the start or from the newest checkpoint; the exit code.

    One of the processes of a run, or the only one: the environment says which.
    """
    ranks = ranks_of(config)
    if not ranks.is_first:
        be_quiet()
    with open_uploads(config, is_first=ranks.is_first) as uploads:
        join(ranks)
        try:
            code = _run_rank(config, ranks, uploads, resume=resume)
        finally:
            leave(ranks)
        missing = uploads.finish()  # the other ranks are gone: none of them waits for copies
        if ranks.is_first and config.train.ckpt.upload_s3:
            remove_oldest(Path(config.train.output_dir), config.train.ckpt.max_keep, uploads.pinned())
        return code or missing


def _run_rank(config: Config, ranks: Ranks, uploads: Uploads, *, resume: bool) -> int:
    for text in (*config.notes, *missing_loggers(config.logging.logger), *unused_settings(config)):
        note(text)
    mix = open_mix(config)
    datasets = datasets_to_draw(mix)
    plan = plan_run(
        config,
        datasets,
        num_ranks=ranks.size,
        known_rows=rows_of_run(config, resume=resume or bool(config.train.resume)),
    )
    rows = plan.order.rows_per_step
    if rows != config.train.train_batch_per_replica * ranks.size:
        note(f"{rows} rows a step, {rows // ranks.size} for each of {ranks.size} ranks, whatever the batch per replica")
    fingerprint = run_fingerprint(config, mix.manifest, rows_per_step=plan.order.rows_per_step)
    start = decide_start(config, resume=resume, fingerprint=fingerprint)
    ranks.wait()  # all have looked before the first one writes
    fact(f"mode: {describe_mode(config)}")
    fact(f"mix: {mix.place}, {len(datasets)} datasets")
    fact(f"plan: {plan.describe()}")
    if held_out := describe_held_out(config, mix):
        fact(held_out)
    if start.note:
        note(start.note)
    hush_progress_bars()
    set_determinism(config)
    # The request holds until the last checkpoint is whole: launchers may send several signals.
    with closing(open_store(config, mix, plan, ranks)) as store, StopRequest() as stop:
        run = load_run(config, plan, start, datasets, fingerprint, mix, store, ranks, uploads)
        with closing(run.saver):
            return _train(run, stop)


def _train(run: Run, stop: StopRequest) -> int:
    if run.ranks.is_first:
        write_run_files(run.config, run.start, run.fingerprint)
        run.uploads.add_earlier(run.output_dir)
    run.ranks.wait()
    refuse_private_folder(run.start)
    config, state = run.config, run.start.state
    next_place = Place() if state is None else Place(step=state.step, epoch=state.epoch, epoch_step=state.epoch_step)
    reports = open_reports(config, run.output_dir, total_steps=run.plan.total_steps)
    is_whole = False
    with (
        RankWatch(run.output_dir, run.ranks, stuck_after_seconds=config.train.stuck_after_seconds) as watch,
        reports if run.ranks.is_first else nullcontext() as shown,
        _sample_losses(run, attempt=(attempt := run.ranks.largest(shown.attempt if shown else 0))) as lines,
        closing(steps_of_run(run, next_place)) as steps,
        StepReader(run, shown, lines, watch, attempt=attempt) as reader,
    ):
        if config.validation.val_before_train and next_place.step == 0:
            before = measure_held_out(run, next_place, watch)
            if shown is not None:
                shown.show_validation(before.metrics, step=0)
                shown.show_answers(before.answers, step=0)
        while not (is_whole := is_past_end(run, next_place)) and not _all_stop(run, stop):
            taken = take_step(run, steps, watch)
            if taken is None:  # epochs of their own lengths came to fewer steps than the first promised
                is_whole = True
                break
            watch.at(f"reading the numbers of the step before {taken.place.step + 1}")
            reader.add(taken)
            next_place = taken.place.next()
            if validation_is_due(run, next_place) or save_is_due(config, next_place):
                watch.at(f"reading step {next_place.step}")
                reader.read()
            if save_is_due(config, next_place):
                watch.at(f"saving step {next_place.step}")
                save_run(run, next_place, validation_loss=reader.validation_loss)
    if stop.signal is not None and not is_whole:
        return end_stopped(run, next_place, stop, validation_loss=reader.validation_loss)
    return end_whole(run, next_place, validation_loss=reader.validation_loss)


def _all_stop(run: Run, stop: StopRequest) -> bool:
    """True once any rank was asked to stop: all leave after the same step.

    Raises StorageError, on all of them, when any has failed to save a checkpoint in the background.
    """
    asked = run.ranks.largest(SAVE_FAILED if run.saver.has_failed else stop.signal or 0)
    if asked == SAVE_FAILED:
        run.saver.finish()
        raise StorageError("another process of the run could not save a checkpoint; its message says why")
    if asked and stop.signal is None:
        stop.signal = signal.Signals(asked)
    return bool(asked)


def _sample_losses(run: Run, *, attempt: int) -> SampleLossLog:
    every = run.config.logging.log_interval
    return SampleLossLog(run.output_dir, attempt=attempt, steps_per_write=every, rank=run.ranks.rank)
