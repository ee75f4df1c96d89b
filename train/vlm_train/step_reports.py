"""Where the numbers of a step go: metrics.jsonl first, then the loggers, then the screen; of the first rank."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_catalogs.config import Config
from vlm_train.live_view import LiveView
from vlm_train.loggers import Logger, numbers_of, open_all
from vlm_train.metrics import MetricsLog, open_metrics


class StepReports:
    """Takes the numbers of each step."""

    def __init__(self, log: MetricsLog, loggers: Sequence[Logger], view: LiveView) -> None:
        self._log, self._loggers, self._view = log, loggers, view
        self.attempt = log.attempt

    def show(self, metrics: Mapping[str, Any]) -> None:
        """Write and show one step. Raises StorageError when the disk does not take it."""
        self._log.write(metrics)
        for logger in self._loggers:
            logger.log(numbers_of(metrics), step=metrics["step"])
        self._view.show(metrics)


@contextmanager
def open_reports(config: Config, output_dir: Path, *, total_steps: int) -> Iterator[StepReports]:
    """The reports of an attempt, closed at the end. Raises ConfigError when a logger cannot start."""
    view = LiveView(total_steps=total_steps, log_interval=config.logging.log_interval)
    with open_metrics(output_dir) as log, open_all(config, output_dir) as loggers, view:
        yield StepReports(log, loggers, view)
