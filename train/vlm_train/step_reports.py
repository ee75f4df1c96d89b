"""Where the numbers of a step go: metrics.jsonl first, then the loggers, then the screen; of the first rank."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from vlm_catalogs import json_text
from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_train.answers import Answer
from vlm_train.live_view import LiveView
from vlm_train.loggers import Logger, numbers_of, open_all
from vlm_train.metrics import ANSWERS_FILE, VALIDATION_FILE, MetricsLog, open_metrics
from vlm_train.time_left import TimeLeft

MOST_CHARACTERS = 200
"""Of an answer on the screen; validation_samples.jsonl has all of it."""


class StepReports:
    """Takes the numbers of each step."""

    def __init__(
        self,
        log: MetricsLog,
        loggers: Sequence[Logger],
        view: LiveView,
        *,
        validations: MetricsLog | None = None,
        answers: MetricsLog | None = None,
        time_left: TimeLeft,
    ) -> None:
        self._log, self._loggers, self._view = log, loggers, view
        self._validations = validations
        self._answers = answers
        self._time_left = time_left
        self.attempt = log.attempt

    def show_validation(self, metrics: Mapping[str, Any], *, step: int) -> None:
        """Write and show what was measured on held-out samples after ``step`` steps."""
        if self._validations is not None:
            held_out = {name: value for name, value in metrics.items() if name.startswith("validation/")}
            self._validations.write({"step": step, **held_out})
            fact(describe_validation(metrics, step=step))
        if step == 0:  # else they are among the numbers of the step
            for logger in self._loggers:
                logger.log(numbers_of(metrics), step=step)

    def show_answers(self, answers: Sequence[Answer], *, step: int) -> None:
        """Write and show what the model answered to held-out samples after ``step`` steps."""
        if not answers:
            return
        for answer in answers:
            if self._answers is not None:
                self._answers.write({"step": step, **answer.as_line()})
            fact(describe_answer(answer))
        for logger in self._loggers:
            logger.log_answers(answers, step=step)

    def show(self, metrics: Mapping[str, Any]) -> None:
        """Write and show one step. Raises StorageError when the disk does not take it."""
        seconds = self._time_left.after(metrics["step"])
        if seconds is not None:
            metrics = {**metrics, "train/seconds_left": seconds}
        if "validation/samples" in metrics:
            self.show_validation(metrics, step=metrics["step"])
        self._log.write(metrics)
        for logger in self._loggers:
            logger.log(numbers_of(metrics), step=metrics["step"])
        self._view.show(metrics)


def describe_validation(metrics: Mapping[str, Any], *, step: int) -> str:
    """One validation as one line."""
    loss = metrics.get("validation/loss")
    found = f"loss {loss:.4f}" if loss is not None else "the loss is not finite"
    broken = [*metrics.get("validation/not_finite", ()), *metrics.get("validation/undecodable", ())]
    return f"validation after {step} steps: {found}" + (f"; look at {', '.join(broken[:5])}" if broken else "")


def describe_answer(answer: Answer) -> str:
    """One answer as one line, long texts shortened."""
    said, expected = (json_text.dumps(_short(text)) for text in (answer.answer, answer.reference))
    return f"  {answer.name}: answered {said}, reference {expected}"


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


@contextmanager
def open_reports(config: Config, output_dir: Path, *, total_steps: int) -> Iterator[StepReports]:
    """The reports of an attempt, closed at the end. Raises ConfigError when a logger cannot start."""
    view = LiveView(total_steps=total_steps, log_interval=config.logging.log_interval)
    is_validated = config.validation.enable
    with (
        open_metrics(output_dir) as log,
        open_metrics(output_dir, VALIDATION_FILE, attempt=log.attempt)
        if is_validated
        else nullcontext() as validations,
        open_metrics(output_dir, ANSWERS_FILE, attempt=log.attempt)
        if config.validation.generate
        else nullcontext() as answers,
        open_all(config, output_dir) as loggers,
        view,
    ):
        left = TimeLeft(total_steps=total_steps)
        yield StepReports(log, loggers, view, validations=validations, answers=answers, time_left=left)
