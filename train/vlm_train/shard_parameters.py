"""Parameters over ranks: FSDP2, a group for each layer of the text model and one for all the rest.

The vision tower stays in the root group: ranks whose micro-batches hold other media then still make the same collective
calls. The root is a wrapper whose forward does everything that reads parameters.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlm_catalogs.config.sections import TrainSection
from vlm_train.loss import token_losses
from vlm_train.models.family import Batch, Family
from vlm_train.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy

LAYERS = ("Qwen3VLTextDecoderLayer", "Qwen3VLMoeTextDecoderLayer", "NemotronHBlock", "Cosmos3EdgeTextDecoderLayer")
"""Class names of what gets a group of its own."""


class WholeForward(nn.Module):
    """A module together with how its family calls it, so that one forward reads every parameter."""

    def __init__(self, module: nn.Module, family: Family) -> None:
        super().__init__()
        self.module = module
        self._family = family

    def forward(self, batch: Batch) -> Tensor:
        """The loss (N,) of each supervised token of ``batch``, in fp32."""
        hidden_BTD = self._family.hidden_states(self.module, batch)
        hidden_ND = hidden_BTD.flatten(0, 1)[batch.places_N]
        return token_losses(self._family.output_layer(self.module), hidden_ND, batch.targets_N)


def shard_module(whole: WholeForward, *, ranks: Ranks, train: TrainSection, precision: "MixedPrecisionPolicy") -> None:
    """Replace the parameters of ``whole`` by this rank's shares, in place. A run in one process keeps them."""
    if ranks.is_alone:
        return
    from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

    device = next(whole.parameters()).device.type
    reshard = {"default": None, "always": True, "never": False}[train.fsdp_reshard_after_forward]
    settings: dict[str, Any] = {
        "mesh": ranks.mesh(device),
        "mp_policy": precision,
        "offload_policy": CPUOffloadPolicy() if train.fsdp_offload and device == "cuda" else OffloadPolicy(),
    }
    if reshard is not None:
        settings["reshard_after_forward"] = reshard
    layers = [one for one in whole.modules() if type(one).__name__ in LAYERS]
    if not layers:
        raise AssertionError(f"no layer of {type(whole.module).__name__} is among {', '.join(LAYERS)}")
    for one in (*layers, whole):
        fully_shard(one, **settings)
        assert isinstance(one, FSDPModule)
        one.set_force_sum_reduction_for_comms(True)
        one.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all ranks already


def full_state_dict(module: nn.Module, *, ranks: Ranks) -> dict[str, Tensor]:
    """Every weight whole, on the CPU of the first rank; empty on the others. All ranks must call it."""
    if ranks.is_alone:
        return dict(module.state_dict())
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole: Any = get_model_state_dict(module, options=options)
    return dict(whole)


def whole_number(value: Tensor) -> Tensor:
    """A norm as an ordinary tensor: that of sharded gradients is spread over ranks."""
    full = getattr(value, "full_tensor", None)
    return value if full is None else full()


def precision_policy(*, compute: torch.dtype, master: torch.dtype, reduce: torch.dtype) -> "MixedPrecisionPolicy":
    """Parameters travel in ``compute``, gradients in ``reduce``; inputs stay as they are, autocast decides there."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if compute == master:
        return MixedPrecisionPolicy(cast_forward_inputs=False)
    return MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=reduce, cast_forward_inputs=False)
