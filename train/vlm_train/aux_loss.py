"""The auxiliary loss of Qwen3-VL MoE: it makes the routers use all experts, and is taken over the whole step.

``coefficient x E x sum over experts of f x P``: f is the share of the step's tokens that chose an expert, P the mean
probability that the routers gave it, both over all layers together and without padding (Switch Transformer, arXiv
2101.03961, equations 4 to 6, as transformers' load_balancing_loss_func). f and P are those of the whole step over all
ranks, so how rows are shared over micro-batches and ranks changes nothing; f carries no gradient and must be known
before the first backward pass, which costs a forward pass of its own where a rank has several micro-batches.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class AuxLoss:
    """What the tokens of a whole step chose."""

    coefficient: float
    loads_E: Tensor
    """Tokens of each expert, over all layers and ranks."""
    experts_per_token: int

    def part(self, probability_sum_E: Tensor) -> Tensor:
        """What a micro-batch adds to the loss, given its routers' probabilities summed over tokens and layers."""
        num_choices = self.loads_E.sum().clamp(min=1) / self.experts_per_token  # tokens x layers
        shares_E = self.loads_E / num_choices
        return self.coefficient * len(self.loads_E) * (shares_E * probability_sum_E).sum() / num_choices
