"""``balance_dp_token = false``: the mean over micro-batches of the mean over their tokens, whoever computes them."""

from collections.abc import Sequence

import pytest
import torch
from tests.train.test_loop import EMPTY, SAMPLES, TextFamily, trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vlm_train.loss_weights import LossGroups, loss_weights
from vlm_train.models.family import EncodedSample

ROWS = (SAMPLES[0], SAMPLES[1], SAMPLES[3], SAMPLES[3], SAMPLES[2], EMPTY, EMPTY, EMPTY)
"""35 and 1 supervised tokens, none in two samples, 2 beside an empty row, and empty rows alone."""
SUPERVISED = (35, 1, 0, 0, 2, 0, 0, 0)


def as_cosmos_rl(rows: Sequence[EncodedSample], *, mini_batch: int) -> tuple[float, Tensor]:
    """Loss and gradient: each micro-batch's mean (0 where nothing is supervised) over their number, summed up."""
    module = TextFamily().load("")
    micro_batches = [rows[begin : begin + mini_batch] for begin in range(0, len(rows), mini_batch)]
    micro_batches = [one for one in micro_batches if any(row.sample_id for row in one)]  # it has no empty rows
    loss = torch.zeros(())
    for one in micro_batches:
        logits = torch.cat([module(row.input_ids_T)[:-1] for row in one])
        labels = torch.cat([row.labels_T[1:] for row in one])
        total = cross_entropy(logits, labels, ignore_index=-100, reduction="none").sum()
        loss = loss + total / ((labels != -100).sum() + 1e-8) / len(micro_batches)
    loss.backward()
    return loss.item(), flat(module)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([one.grad.flatten() for one in module.parameters() if one.grad is not None])


@pytest.mark.parametrize("mini_batch", [1, 2, 4])
@pytest.mark.parametrize("passes", [((0, 1, 2, 3), (4, 5, 6, 7)), ((7, 0), (3, 5), (1, 2), (6, 4))])
def test_each_micro_batch_weighs_the_same_whatever_the_forward_passes(
    mini_batch: int, passes: tuple[tuple[int, ...], ...]
) -> None:
    loss, gradient = as_cosmos_rl(ROWS, mini_batch=mini_batch)
    module = TextFamily().load("")
    batches = [TextFamily().collate([[ROWS[row]] for row in one]) for one in passes]
    groups = LossGroups(of_samples=[row // mini_batch for one in passes for row in one], number=8 // mini_batch)
    one = trainer(module)
    one._grad_norm_clip = 0.0
    result = one.take_step(batches, groups=groups).result()
    assert result.loss == pytest.approx(loss, rel=1e-6)
    assert (flat(module) - gradient).norm() / gradient.norm() <= 1e-6
    assert result.num_supervised_tokens == sum(SUPERVISED)


def test_ranks_know_the_tokens_of_the_micro_batches_that_they_share() -> None:
    rows_of_ranks = ((0, 3, 4, 7), (1, 2, 5, 6))  # row 0 and row 1 are one micro-batch, on two ranks
    own: list[Tensor] = []

    def weights(rows: Sequence[int], total: Tensor | None) -> Tensor:
        batch = TextFamily().collate([[ROWS[row]] for row in rows])
        groups = LossGroups(of_samples=[row // 2 for row in rows], number=4)
        return loss_weights(
            [batch], groups, add_up=lambda values: own.append(values) or (values if total is None else total)
        )

    for rows in rows_of_ranks:
        weights(rows, None)
    total = own[0] + own[1]
    first, second = (weights(rows, total).tolist() for rows in rows_of_ranks)
    assert first[:1] == second[:1] == [pytest.approx(1 / (3 * 36))]
    assert first[2] == pytest.approx(1 / (3 * 2))


def test_without_groups_every_token_of_the_step_weighs_the_same() -> None:
    batch = TextFamily().collate([[row] for row in ROWS])
    assert set(loss_weights([batch], None, add_up=lambda values: values).tolist()) == {1 / 38}
