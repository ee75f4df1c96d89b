"""The cross entropy of supervised tokens, a chunk at a time: the logits of a whole batch never exist.

Only supervised tokens reach the output layer. The backward pass computes the logits of a chunk once more, so at most
chunk x vocabulary of them stand in memory at any time, whatever the length of the rows. Tensor names carry their shape:
N supervised tokens, D width, S samples.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 1024
"""Supervised tokens whose logits are in memory together."""


def token_losses(head: nn.Module, hidden_ND: Tensor, targets_N: Tensor, *, chunk: int = CHUNK_TOKENS) -> Tensor:
    """The cross entropy (N,) in fp32 of each target, ``head`` making logits of its hidden state.

    Without any target the result is empty, but the output layer takes part all the same: every trainable parameter gets
    a gradient, and under FSDP every rank makes the same calls.
    """
    if len(targets_N) == 0:
        unused_V: Tensor = head(hidden_ND.new_zeros(1, hidden_ND.shape[1]) + hidden_ND.sum())
        return unused_V.float().sum(1)[:0]
    pieces = zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True)
    return torch.cat([checkpoint(_losses, head, *piece, use_reentrant=False) for piece in pieces])


def sample_sums(losses_N: Tensor, samples_N: Tensor, *, num_samples: int) -> Tensor:
    """The loss (S,) of each sample in fp64, summed over its supervised tokens."""
    sums_S = torch.zeros(num_samples, dtype=torch.float64, device=losses_N.device)
    return sums_S.index_add_(0, samples_N, losses_N.detach().double())


def _losses(head: nn.Module, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    return cross_entropy(head(hidden_ND).float(), targets_N, reduction="none")
