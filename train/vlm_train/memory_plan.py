"""How much memory will a rank need, and how large will a checkpoint be? From shapes alone, before anything is loaded.

Weights, gradients, optimizer and checkpoint are counted to the byte. Activations are an estimate (``activations``).
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from vlm_catalogs.config import Config
from vlm_train.activations import Activations, activations
from vlm_train.heaviest import MicroBatch
from vlm_train.loss import CHUNK_TOKENS

if TYPE_CHECKING:
    from torch import Tensor, nn

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MOMENTS = 2
"""AdamW keeps two, of the type of the weights."""
BYTES_OF_STEP = 4
"""And counts the steps of each tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes of one rank; of ranks that share parameters the one with the largest shares."""

    weights: int
    """With the model's buffers."""
    gradients: int
    optimizer: int
    activations: int
    """Of the heaviest micro-batch, kept until the backward pass: an estimate."""
    recomputed: int
    """Of one layer, while it is computed again: an estimate."""
    logits: int
    """Of one chunk of supervised tokens, with their gradients."""
    checkpoint: int
    """What the tensors of one come to, of all ranks together; files have a few more bytes a tensor."""

    @property
    def total(self) -> int:
        """What a rank needs, without what the libraries and the CUDA context take."""
        in_turn = max(self.recomputed, self.logits)
        return self.weights + self.gradients + self.optimizer + self.activations + in_turn


def plan_memory(
    config: Config, module: "nn.Module", heaviest: Collection[MicroBatch | None], *, num_shards: int
) -> MemoryPlan:
    """The memory of a run of ``module``, which may stand on the meta device, frozen as it trains.

    ``num_shards`` ranks share one copy of the parameters, the gradients and the optimizer's state.
    """
    parameters = list(module.parameters())
    trained = [one for one in parameters if one.requires_grad]
    master, compute = BYTES[config.train.master_dtype], BYTES[config.train.param_dtype]
    values = sum(_share(one, num_shards) for one in trained)
    recomputes = config.policy.model_gradient_checkpointing
    found = [activations(module, one, bytes_of_value=compute, recomputes=recomputes) for one in heaviest if one]
    most = max(found, key=lambda one: one.kept + one.recomputed, default=Activations(kept=0, recomputed=0))
    return MemoryPlan(
        weights=master * sum(_share(one, num_shards) for one in parameters) + sum(map(_bytes, module.buffers())),
        gradients=master * values,
        optimizer=MOMENTS * master * values + BYTES_OF_STEP * len(trained),
        activations=most.kept,
        recomputed=most.recomputed,
        logits=_logits(module, heaviest, compute),
        checkpoint=checkpoint_bytes(config, module),
    )


def checkpoint_bytes(config: Config, module: "nn.Module") -> int:
    """What the tensors of a checkpoint come to: weights, buffers that are saved, moments and steps of what trains."""
    master = BYTES[config.train.master_dtype]
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained = [one for one in module.parameters() if one.requires_grad]
    saved = [
        master * value.numel() if name in parameters else _bytes(value)
        for name, value in module.state_dict(keep_vars=True).items()
        if config.policy.lora is None or name not in parameters or parameters[name].requires_grad
    ]
    return sum(saved) + sum(MOMENTS * master * one.numel() + BYTES_OF_STEP for one in trained)


def _share(parameter: "Tensor", num_shards: int) -> int:
    """Values of the rank that has most: rows are dealt out whole."""
    if num_shards == 1 or parameter.dim() == 0:
        return parameter.numel()
    return ceil(len(parameter) / num_shards) * (parameter.numel() // max(1, len(parameter)))


def _bytes(tensor: "Tensor") -> int:
    return tensor.numel() * tensor.element_size()


def _logits(module: "nn.Module", heaviest: Collection[MicroBatch | None], compute: int) -> int:
    """Logits in the type of products, in fp32, and the gradient of both."""
    model: Any = module
    tokens = max((one.supervised_tokens for one in heaviest if one), default=0)
    vocabulary = int(model.config.get_text_config().vocab_size)
    return min(CHUNK_TOKENS, tokens) * vocabulary * 2 * (compute + 4)
