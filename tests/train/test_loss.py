from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlm_train.loss import sample_sums, token_losses

WIDTH, VOCABULARY, CHUNK = 4, 512, 16


class Shapes(TorchDispatchMode):
    """The shapes of everything that is computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        self.seen |= {tuple(one.shape) for one in tree_leaves(output) if isinstance(one, Tensor)}
        return output


def tokens(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    hidden_ND = torch.randn(number, WIDTH, generator=generator, requires_grad=True)
    return hidden_ND, torch.randint(0, VOCABULARY, (number,), generator=generator)


def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=False)


@pytest.mark.parametrize("number", [1, CHUNK, CHUNK + 1, 5 * CHUNK - 3])
def test_losses_and_gradients_equal_plain_cross_entropy(number: int) -> None:
    hidden_ND, targets_N = tokens(number)
    plain, chunked = head(), head()
    expected = cross_entropy(plain(hidden_ND), targets_N, reduction="none")
    (plain_gradient,) = torch.autograd.grad(expected.sum(), hidden_ND, retain_graph=True)
    expected.sum().backward()
    hidden_ND.grad = None
    losses_N = token_losses(chunked, hidden_ND, targets_N, chunk=CHUNK)
    losses_N.sum().backward()
    assert (losses_N - expected).abs().max() <= 1e-6
    assert hidden_ND.grad is not None and plain.weight.grad is not None and chunked.weight.grad is not None
    assert (hidden_ND.grad - plain_gradient).norm() / plain_gradient.norm() <= 1e-6
    assert (chunked.weight.grad - plain.weight.grad).norm() / plain.weight.grad.norm() <= 1e-6


@pytest.mark.parametrize("number", [4 * CHUNK, 40 * CHUNK])
def test_nothing_is_larger_than_the_logits_of_a_chunk_at_any_length(number: int) -> None:
    layer = head()
    hidden_ND, targets_N = tokens(number)
    with Shapes() as shapes:
        token_losses(layer, hidden_ND, targets_N, chunk=CHUNK).sum().backward()
    assert (CHUNK, VOCABULARY) in shapes.seen
    of_weights = {(VOCABULARY, WIDTH), (WIDTH, VOCABULARY)}
    largest = max(torch.Size(shape).numel() for shape in shapes.seen - of_weights)
    assert largest <= CHUNK * VOCABULARY


def test_without_targets_every_parameter_still_gets_a_gradient() -> None:
    layer = head()
    hidden_ND = torch.randn(3, WIDTH, requires_grad=True)
    losses_N = token_losses(layer, hidden_ND[:0], torch.empty(0, dtype=torch.int64))
    losses_N.sum().backward()
    assert len(losses_N) == 0
    assert layer.weight.grad is not None and not layer.weight.grad.any()
    assert hidden_ND.grad is not None and not hidden_ND.grad.any()


def test_losses_add_up_by_sample_and_a_sample_without_targets_has_none() -> None:
    sums_S = sample_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 2]), num_samples=4)
    assert sums_S.tolist() == [1.0, 0.0, 6.0, 0.0]
