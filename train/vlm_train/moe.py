"""Experts: how many tokens each gets, and the bias that evens them out without a loss of its own.

Auxiliary-loss-free balancing (Wang et al. 2024, arXiv 2408.15664, as Nemotron-3 uses it): a router with a selection
bias gets, after each optimizer step, ``bias += 1e-3 * sign(mean(load) - load)``, load being the tokens of each expert
over the whole step and all ranks. Padding and empty rows are no tokens. Tensor names: N tokens, K experts per token.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BIAS = "e_score_correction_bias"
BIAS_STEP = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterHealth:
    """How evenly the experts of all layers were used over some steps."""

    entropy_mean: float
    """Entropy of a layer's load over its largest possible value: 1 is even, 0 is one expert alone."""
    entropy_min: float
    largest_share_mean: float
    """Share of a layer's tokens that its busiest expert got."""
    largest_share_max: float
    num_dead: int
    """Experts, over all layers, without a token."""
    tokens_per_layer: float
    """Tokens times experts per token, mean over layers."""

    def metrics(self) -> dict[str, float]:
        """As they stand in metrics.jsonl."""
        return {
            "moe/entropy_mean": self.entropy_mean,
            "moe/entropy_min": self.entropy_min,
            "moe/largest_share_mean": self.largest_share_mean,
            "moe/largest_share_max": self.largest_share_max,
            "moe/dead_experts": self.num_dead,
            "moe/tokens_per_layer": self.tokens_per_layer,
        }


class RouterWatch:
    """Counts the tokens of each expert of a module; ``update_biases`` acts on the counts of one step."""

    def __init__(self, module: nn.Module) -> None:
        self.routers: list[Any] = [one for one in module.modules() if is_router(one)]
        device = next(module.parameters()).device
        self._loads = [torch.zeros(one.num_experts, device=device) for one in self.routers]
        self._since_report = [torch.zeros_like(load) for load in self._loads]
        self._real_N: Tensor | None = None
        self._logits: list[Tensor] | None = None
        for number, router in enumerate(self.routers):
            router.register_forward_hook(self._hook(number))

    @property
    def can_balance(self) -> bool:
        """True when every router has a selection bias."""
        return bool(self.routers) and all(hasattr(one, BIAS) for one in self.routers)

    @contextmanager
    def counting(self, real_N: Tensor, *, with_probabilities: bool = False) -> Iterator[None]:
        """Count the forward pass inside; ``real_N`` says which of its tokens, row after row, are no padding.

        ``with_probabilities`` keeps for ``probability_sum`` what the routers thought of every expert, with its graph.
        Recomputation in the backward pass comes after it and counts nothing.
        """
        self._real_N = self._last_real_N = real_N.flatten()
        self._logits = [] if with_probabilities else None
        try:
            yield
        finally:
            self._real_N = None

    def probability_sum(self) -> Tensor:
        """The routers' probabilities of each expert (experts,), over the real tokens and layers of the last pass."""
        assert self._logits, "no pass was counted with probabilities"
        real_N1 = self._last_real_N[:, None]
        # Only here, outside of the layers: what a layer saves must be the same when it is computed again.
        sums = [(torch.softmax(logits_NE.float(), dim=-1) * real_N1).sum(0) for logits_NE in self._logits]
        self._logits = None
        return torch.stack(sums).sum(0)

    def layer_sum(self) -> Tensor:
        """The counts of this step so far (experts,), over the layers."""
        return torch.stack(self._loads).sum(0)

    def clear_step(self) -> None:
        """Forget the counts of this step: its passes will be counted once more."""
        for load in self._loads:
            load.zero_()

    def step_loads(self) -> Tensor | None:
        """The counts of this step so far, all layers in one tensor that ranks may add up in place; None: no experts."""
        if not self.routers:
            return None
        joined = torch.cat(self._loads)
        self._loads = list(torch.split(joined, [len(load) for load in self._loads]))
        return joined

    @torch.no_grad()
    def end_step(self, *, balance: bool, counts: Tensor) -> None:
        """Let the counts of this step go into the report and, with ``balance``, into the biases; then begin anew.

        ``counts`` () is 1, or 0 on the device for a step that is skipped.
        """
        for router, load, total in zip(self.routers, self._loads, self._since_report, strict=True):
            total += load * counts
            if balance:
                bias = getattr(router, BIAS)
                bias += BIAS_STEP * torch.sign(load.mean() - load) * counts
            load.zero_()

    def take_loads(self) -> list[Tensor]:
        """The tokens of each expert (experts,), router by router, since the last call."""
        taken = [load.clone() for load in self._since_report]
        for load in self._since_report:
            load.zero_()
        return taken

    def _hook(self, number: int) -> Any:
        def count(_module: nn.Module, _inputs: Any, outputs: tuple[Tensor, Tensor, Tensor]) -> None:
            if self._real_N is None:
                return
            chosen_NK = outputs[2]
            if len(chosen_NK) != len(self._real_N):
                raise AssertionError(f"a router saw {len(chosen_NK)} tokens, the batch has {len(self._real_N)}")
            real_NK = self._real_N[:, None].expand_as(chosen_NK).to(self._loads[number])
            self._loads[number].scatter_add_(0, chosen_NK.flatten(), real_NK.flatten())
            if self._logits is not None:
                self._logits.append(outputs[0])

        disable: Any = torch.compiler.disable
        return disable(count)  # a compiled layer stays the same with and without counting


def is_router(module: nn.Module) -> bool:
    """True for the routers of transformers: they return (logits, scores, chosen experts)."""
    return type(module).__name__.lower().endswith("topkrouter")


def router_health(loads: Sequence[Sequence[float]]) -> RouterHealth | None:
    """How even the loads (one list per layer, a count per expert) are; None when no layer has a token."""
    counted = [load for load in loads if sum(load) > 0]
    if not counted:
        return None
    entropies = [_entropy(load) for load in counted]
    largest = [max(load) / sum(load) for load in counted]
    return RouterHealth(
        entropy_mean=sum(entropies) / len(counted),
        entropy_min=min(entropies),
        largest_share_mean=sum(largest) / len(counted),
        largest_share_max=max(largest),
        num_dead=sum(count == 0 for load in counted for count in load),
        tokens_per_layer=sum(sum(load) for load in counted) / len(counted),
    )


def _entropy(load: Sequence[float]) -> float:
    shares = [count / sum(load) for count in load if count > 0]
    return -sum(share * math.log(share) for share in shares) / math.log(len(load)) if len(load) > 1 else 1.0
