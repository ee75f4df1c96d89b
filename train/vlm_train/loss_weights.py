"""What a supervised token weighs in the loss of a step: the same for all, or by the micro-batch that it belongs to.

With ``balance_dp_token = false`` cosmos-rl takes the mean over the tokens of each micro-batch, then the mean over the
micro-batches of all ranks: a short answer then weighs more than a long one. A micro-batch is ``mini_batch`` rows of the
step that follow each other, so that the loss does not depend on which rank, or which forward pass, computes them.
Tensor names carry their shape: S samples, G groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlm_train.models.family import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class LossGroups:
    """The micro-batches of a step over all ranks, each of which weighs the same."""

    of_samples: Sequence[int]
    """For each sample of this rank, in order of its rows, the number of its group; empty rows have one, too."""
    number: int
    """Groups of the whole step, those of empty rows included."""


def loss_weights(batches: Sequence[Batch], groups: LossGroups | None, *, add_up: Callable[[Tensor], Tensor]) -> Tensor:
    """What a supervised token of each sample weighs (S,), fp64 on the CPU, for the samples of ``batches`` in order.

    Without ``groups`` every supervised token of the step weighs the same.

    A group without a supervised token counts as a mean of 0, as in cosmos-rl; one of empty rows alone does not count.
    ``add_up`` sums a tensor over the ranks.
    """
    samples = [bool(name) for batch in batches for name in batch.sample_ids]
    numbers_S = torch.tensor(groups.of_samples if groups else [0] * len(samples))
    counts_S = torch.cat([torch.bincount(batch.samples_N, minlength=len(batch.sample_ids)) for batch in batches])
    own = torch.stack([counts_S.double(), torch.tensor(samples).double()])
    size = groups.number if groups else 1
    tokens_G, samples_G = add_up(torch.zeros(2, size, dtype=torch.float64).index_add_(1, numbers_S, own))
    num_groups = (samples_G > 0).sum().clamp(min=1)
    weights_G = 1 / (num_groups * tokens_G.clamp(min=1))
    weights_S: Tensor = weights_G[numbers_S]
    return weights_S
