"""What happens to a bad step: its samples and where they came from are written, then the run goes on or stops.

``<run>/bad_steps.jsonl`` has a line for each: step, reason, numbers, and every sample with its own loss, the worst
first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_catalogs.config import Config
from vlm_catalogs.console import note
from vlm_catalogs.errors import DataError
from vlm_train.guard import StepGuard, Verdict
from vlm_train.metrics import BAD_STEPS_FILE, open_metrics
from vlm_train.planned_rows import PlannedRow
from vlm_train.ranks import Ranks
from vlm_train.sample_store import SampleStore
from vlm_train.step_metrics import WHY
from vlm_train.step_result import SampleLoss, StepResult
from vlm_train.step_stream import Place

NUM_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSteps:
    """Deals with the steps of a run as they are read, one after another; the same on every rank."""

    config: Config
    output_dir: Path
    attempt: int
    guard: StepGuard
    store: SampleStore
    ranks: Ranks

    def settle(self, place: Place, outcome: StepResult, planned: Sequence[PlannedRow]) -> None:
        """Count the step at ``place``, of whose samples ``planned`` are those of this rank. All ranks must call it.

        Raises DataError, naming the worst samples, when it was bad and the TOML stops there.
        """
        is_bad = outcome.verdict != Verdict.GOOD
        if not is_bad:
            self.guard.count(is_skipped=False)
            return
        skips = self.config.train.on_bad_step == "skip"
        self.guard.count(is_skipped=skips)
        mine = [_described(row, loss, self.store) for row, loss in zip(planned, outcome.samples, strict=True)]
        samples = sorted(self.ranks.gather(mine), key=_worst_first)
        stop = self._why_to_stop() if skips else "stopped before the weights changed"
        self._write(place, outcome, samples, action="stopped" if stop else "skipped")
        found = (
            f"step {place.step + 1}: {WHY[outcome.verdict]} (loss {outcome.loss:.4g}, gradient norm "
            f"{outcome.grad_norm:.4g})"
        )
        where = f"{_named(samples)}; all of its samples: {self.output_dir / BAD_STEPS_FILE}"
        if stop:
            raise DataError(f"{found}: {stop}; {where}; look at them, or lower train.optm_lr")
        note(f"{found}: skipped, the weights are those of the step before; {where}")

    def _why_to_stop(self) -> str | None:
        train, guard = self.config.train, self.guard
        if guard.num_in_a_row > train.max_skipped_in_a_row:
            return f"more than train.max_skipped_in_a_row = {train.max_skipped_in_a_row} steps in a row were bad"
        if guard.num_skipped > train.max_skipped_steps:
            return f"more than train.max_skipped_steps = {train.max_skipped_steps} steps of this run were bad"
        return None

    def _write(self, place: Place, outcome: StepResult, samples: list[dict[str, Any]], *, action: str) -> None:
        if not self.ranks.is_first:
            return
        line = {
            "step": place.step + 1,
            "epoch": place.epoch,
            "epoch_step": place.epoch_step,
            "reason": WHY[outcome.verdict],
            "action": action,
            "loss": outcome.loss,
            "grad_norm": outcome.grad_norm,
            "samples": samples,
        }
        with open_metrics(self.output_dir, BAD_STEPS_FILE, attempt=self.attempt) as log:
            log.write(line)


def _described(row: PlannedRow, loss: SampleLoss, store: SampleStore) -> dict[str, Any]:
    """One sample; its ``loss`` is the mean over its supervised tokens, null where it has none or it is not finite."""
    source, member = store.origin(row)
    return {
        "dataset": row.dataset,
        "sample_id": row.sample_id,
        "source": source,
        "member": member,
        "loss": loss.loss_sum / loss.num_supervised_tokens if loss.num_supervised_tokens else None,
        "is_finite": math.isfinite(loss.loss_sum),
        "supervised_tokens": loss.num_supervised_tokens,
        "tokens": row.tokens,
        "row": row.row,
        "position": row.position,
        "alternative": row.alternative,
        "part": row.part,
        "shard": row.shard,
        "index_in_shard": row.index_in_shard,
    }


def _worst_first(sample: dict[str, Any]) -> tuple[bool, float, int, int]:
    loss = sample["loss"] if sample["is_finite"] and sample["loss"] is not None else 0.0
    return sample["is_finite"], -loss, sample["row"], sample["position"]


def _named(samples: Sequence[dict[str, Any]]) -> str:
    """The samples whose loss is not finite, else those with the highest loss."""
    broken = [one for one in samples if not one["is_finite"]]
    whose = "not finite is the loss of" if broken else "the highest losses are those of"
    named = [
        f"{one['dataset']}/{one['sample_id']} ({one['source']} {one['member']}".rstrip() + ")"
        for one in (broken or samples)[:NUM_NAMED]
    ]
    more = f" and {len(broken) - NUM_NAMED} more" if len(broken) > NUM_NAMED else ""
    return f"{whose} {', '.join(named)}{more}"
