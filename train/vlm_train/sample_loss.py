"""The loss of every sample of every step: ``<run>/sample_loss/rank-00000/part-00001-00000.parquet``.

A part belongs to one attempt and is written anew, by rename, every ``log_interval`` steps until it is large enough: a
kill loses no more than the steps since, and no part is ever torn.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.tables import SAMPLE_LOSS
from vlm_train.planned_rows import PlannedRow
from vlm_train.step_result import SampleLoss

FOLDER = "sample_loss"
ROWS_PER_PART = 32_768
"""Once a part has as many, the next begins; writing one again takes milliseconds."""


class SampleLossLog:
    """Collects the losses of this rank's samples and writes them every ``steps_per_write`` steps, and at the end."""

    def __init__(self, output_dir: Path, *, attempt: int, steps_per_write: int, rank: int = 0) -> None:
        self._folder = output_dir / FOLDER / f"rank-{rank:05d}"
        self._attempt = attempt
        self._steps_per_write = steps_per_write
        self._rows: list[dict[str, Any]] = []
        self._num_waiting_steps = 0
        self._part = 0

    def add(self, epoch: int, planned: Sequence[PlannedRow], losses: Sequence[SampleLoss]) -> None:
        """Take in one step: the samples as planned, and what each added to the loss, in the same order."""
        self._rows += [_line(self._attempt, epoch, one, loss) for one, loss in zip(planned, losses, strict=True)]
        self._num_waiting_steps += 1
        if self._num_waiting_steps >= self._steps_per_write:
            self.write()

    def write(self) -> None:
        """Put everything on the disk. Raises StorageError when it does not take it."""
        if self._num_waiting_steps == 0:
            return
        path = self._folder / f"part-{self._attempt:05d}-{self._part:05d}.parquet"
        staged = path.with_name(f".{path.name}.tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(self._rows, schema=SAMPLE_LOSS), staged)
            staged.rename(path)
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written: {error}; free some space and go on with --resume"
            ) from error
        self._num_waiting_steps = 0
        if len(self._rows) >= ROWS_PER_PART:
            self._rows, self._part = [], self._part + 1

    def __enter__(self) -> "SampleLossLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.write()


def read_losses(path: Path, **how: Any) -> pa.Table:
    """A part, or what ``how`` asks pyarrow for of it. Raises DataError where it is damaged."""
    try:
        return pq.read_table(path, **how)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: damaged: {error}; move it away to go without these losses") from error


def _line(attempt: int, epoch: int, planned: PlannedRow, loss: SampleLoss) -> dict[str, Any]:
    if (planned.dataset, planned.sample_id) != (loss.dataset, loss.sample_id):
        raise AssertionError(f"the loss of {loss.dataset}/{loss.sample_id} stands where {planned.name} was planned")
    return {
        "attempt": attempt,
        "epoch": epoch,
        "step": planned.step,
        "row": planned.row,
        "position": planned.position,
        "dataset": planned.dataset,
        "sample_id": planned.sample_id,
        "sample_key": planned.sample_key,
        "loss_sum": loss.loss_sum,
        "supervised_tokens": loss.num_supervised_tokens,
    }
