"""Which numbers does a step leave, by which names? Pure."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from vlm_train.checkpoint import RunState
from vlm_train.loop import SampleLoss, StepResult


def step_metrics(before: RunState, outcome: StepResult, *, lr: float, waited: float, seconds: float) -> dict[str, Any]:
    """The line of one step. ``step`` counts from 1; ``epoch`` and ``epoch_step`` are those of the epoch table."""
    aux = {} if outcome.aux_loss is None else {"moe/aux_loss": outcome.aux_loss}
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
        **aux,
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
