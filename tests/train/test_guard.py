"""The guard on the device calls the same steps spikes as the rule on lists, and goes on the same after a save."""

import math
import random

import pytest
import torch

from vlm_catalogs import json_text
from vlm_train.guard import StepGuard, Verdict
from vlm_train.spikes import spike_steps

CPU = torch.device("cpu")


def judge(guard: StepGuard, loss: float, norm: float = 1.0) -> Verdict:
    return Verdict(int(guard.judge(*(torch.tensor(one, dtype=torch.float64) for one in (loss, norm)))))


def random_losses(draw: random.Random, number: int) -> list[float]:
    """A falling loss with noise, spikes and what is not finite in it; sometimes all equal."""
    noise = draw.choice([0.0, 0.01, 0.3])
    losses = [3 * 0.99**step + noise * draw.gauss(0, 1) for step in range(number)]
    for place in draw.sample(range(number), number // 20):
        losses[place] = draw.choice([math.nan, math.inf, losses[place] + 5, losses[place] + 2 * noise])
    return losses


@pytest.mark.parametrize("seed", range(6))
def test_spikes_are_those_of_explain_with_and_without_a_save_in_between(seed: int) -> None:
    draw = random.Random(seed)
    losses, mads = random_losses(draw, 450), draw.choice([3.0, 6.0])
    guard, saves = StepGuard(CPU, spike_mads=mads), draw.sample(range(450), 4)
    found = []
    for step, loss in enumerate(losses):
        if step in saves:
            state = json_text.loads(json_text.dumps(guard.state()))
            guard = StepGuard(CPU, spike_mads=mads)
            guard.load(state)
        verdict = judge(guard, loss)
        assert (verdict == Verdict.LOSS_NOT_FINITE) == (not math.isfinite(loss))
        found += [step] * (verdict == Verdict.SPIKE)
    assert found == [step for step in spike_steps(losses, mads=mads) if math.isfinite(losses[step])]
    assert found


def test_without_spikes_only_what_is_not_finite_is_bad() -> None:
    guard = StepGuard(CPU)
    verdicts = [
        judge(guard, *pair) for pair in [(1.0, 1.0)] * 20 + [(99.0, 1.0), (math.inf, math.nan), (1.0, math.nan)]
    ]
    assert verdicts == [Verdict.GOOD] * 21 + [Verdict.LOSS_NOT_FINITE, Verdict.GRADIENT_NOT_FINITE]
    assert guard.state()["losses"] == []


def test_skipped_steps_are_counted_in_all_and_in_a_row() -> None:
    guard = StepGuard(CPU)
    for is_skipped in (True, False, True, True):
        guard.count(is_skipped=is_skipped)
    assert (guard.num_skipped, guard.num_in_a_row) == (3, 2)
