"""Which samples had the highest loss of their own, beside what their step had? Losses fall over a run, so the mean of
the step is the measure: else the first steps would have all the worst ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlm_train.sample_loss import FOLDER, read_losses

COLUMNS = ["attempt", "epoch", "step", "row", "position", "sample_key", "loss_sum", "supervised_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstSample:
    """A sample in the step where it stood out most."""

    line: Mapping[str, Any]
    """The metrics of that step."""
    row: int
    position: int


def worst_samples(run: Path, lines: Sequence[Mapping[str, Any]], *, most: int) -> list[WorstSample]:
    """The samples furthest above the loss of their step, each once, the worst first; a loss that is not finite leads.

    ``lines`` are the metrics of the steps that count. One file of losses is in memory at a time. Raises DataError for
    a damaged one.
    """
    worst: dict[int, dict[str, Any]] = {}
    steps = _steps(lines)
    for path in sorted((run / FOLDER).glob("rank-*/part-*.parquet")):
        found = [*worst.values(), *_worst_of(read_losses(path, columns=COLUMNS), steps, most=most)]
        worst = {}
        for one in sorted(found, key=lambda each: (-each["excess"], each["sample_key"])):
            worst.setdefault(one["sample_key"], one)
        worst = dict(list(worst.items())[:most])
    by_place = {(one["epoch"], one["epoch_step"]): one for one in lines}
    return [
        WorstSample(line=by_place[one["epoch"], one["step"]], row=one["row"], position=one["position"])
        for one in worst.values()
    ]


def _worst_of(losses: pa.Table, steps: pa.Table, *, most: int) -> list[dict[str, Any]]:
    """The lines of one file that can be among the worst: those of ``most`` samples."""
    ordered = _with_excess(losses, steps).sort_by([("excess", "descending"), ("sample_key", "ascending")])
    chosen: dict[int, dict[str, Any]] = {}
    for batch in ordered.to_batches(max_chunksize=1024):
        for one in batch.to_pylist():
            chosen.setdefault(one["sample_key"], one)
            if len(chosen) >= most:
                return list(chosen.values())
    return list(chosen.values())


def _steps(lines: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.table(
        {
            "epoch": pa.array([one["epoch"] for one in lines], pa.int32()),
            "step": pa.array([one["epoch_step"] for one in lines], pa.int32()),
            "attempt": pa.array([one.get("attempt", 1) for one in lines], pa.int32()),
            "step_loss": pa.array([_number(one["train/loss"]) for one in lines], pa.float64()),
        }
    )


def _with_excess(losses: pa.Table, steps: pa.Table) -> pa.Table:
    """The lines of the attempts that count, of samples with labels, with ``excess``: their loss over their step's."""
    labelled = losses.filter(pc.greater(losses["supervised_tokens"], 0))
    found = labelled.join(steps, keys=["epoch", "step", "attempt"], join_type="inner")
    excess = pc.subtract(pc.divide(found["loss_sum"], found["supervised_tokens"]), found["step_loss"])
    return found.append_column("excess", pc.if_else(pc.is_finite(excess), excess, pa.scalar(math.inf)))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
