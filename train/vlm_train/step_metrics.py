"""Which numbers does a step leave, by which names? Pure."""

from collections.abc import Mapping
from typing import Any

from vlm_train.guard import Verdict
from vlm_train.step_result import DatasetTotals, StepResult
from vlm_train.step_stream import Place

WHY = {
    Verdict.LOSS_NOT_FINITE: "the loss is not finite",
    Verdict.GRADIENT_NOT_FINITE: "the gradient is not finite",
    Verdict.SPIKE: "the loss is a spike",
}


def step_metrics(place: Place, outcome: StepResult, *, lr: float, waited: float, seconds: float) -> dict[str, Any]:
    """The line of the step at ``place``. ``step`` counts from 1, ``epoch`` and ``epoch_step`` as the epoch table."""
    aux = {} if outcome.aux_loss is None else {"moe/aux_loss": outcome.aux_loss}
    bad = {} if outcome.verdict == Verdict.GOOD else {"train/bad_step": WHY[outcome.verdict]}
    health = {} if outcome.router_health is None else outcome.router_health.metrics()
    return {
        "step": place.step + 1,
        "epoch": place.epoch,
        "epoch_step": place.epoch_step,
        "train/loss": outcome.loss,
        "train/lr": lr,
        "train/grad_norm": outcome.grad_norm,
        "train/supervised_tokens": outcome.num_supervised_tokens,
        "train/useful_tokens_per_second": outcome.num_tokens / seconds,
        "train/padding_share": outcome.num_padding / max(1, outcome.num_tokens + outcome.num_padding),
        "data/wait_seconds": waited,
        **bad,
        **aux,
        **health,
        **dataset_metrics(outcome.datasets),
    }


def dataset_metrics(datasets: Mapping[str, DatasetTotals]) -> dict[str, float]:
    """For each dataset of a step: mean loss over its supervised tokens (where it has any), tokens, samples."""
    metrics: dict[str, float] = {}
    for name in sorted(datasets):
        totals = datasets[name]
        if totals.num_supervised_tokens:
            metrics[f"loss/{name}"] = totals.loss_sum / totals.num_supervised_tokens
        metrics[f"tokens/{name}"] = totals.num_tokens
        metrics[f"samples/{name}"] = totals.num_samples
    return metrics
