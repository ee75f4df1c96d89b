"""Parameters over ranks: FSDP2, a group for each layer of the text model and one for all the rest.

The vision tower stays in the root group: ranks whose micro-batches hold other media then still make the same collective
calls. The root is a wrapper whose forward does everything that reads parameters.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlm_catalogs.config.sections import TrainSection
from vlm_train.loss import token_losses
from vlm_train.models.expert_parallel import ExpertGroup, experts_of, share_experts
from vlm_train.models.family import Batch, Family, TokenCache
from vlm_train.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy

LAYERS = ("Qwen3VLTextDecoderLayer", "Qwen3VLMoeTextDecoderLayer", "NemotronHBlock", "Cosmos3EdgeTextDecoderLayer")
"""Class names of what gets a group of its own."""


class WholeForward(nn.Module):
    """A module together with how its family calls it, so that one forward reads every parameter."""

    def __init__(self, module: nn.Module, family: Family) -> None:
        super().__init__()
        self.module = module
        self._family = family
        self.stays_whole = False
        """True where parameters and gradients stay whole on every rank between the micro-batches of a step."""

    def forward(self, batch: Batch) -> Tensor:
        """The loss (N,) of each supervised token of ``batch``, in fp32."""
        hidden_BTD = self._family.hidden_states(self.module, batch)
        hidden_ND = hidden_BTD.flatten(0, 1)[batch.places_N]
        return token_losses(self._family.output_layer(self.module), hidden_ND, batch.targets_N)

    def first_logits(self, prompt: Batch, cache: TokenCache) -> Tensor:
        """The logits (V,) of the token after ``prompt``, a row of one sample, in fp32; ``cache`` takes the prompt."""
        return self._last_logits(self._family.hidden_states(self.module, prompt, cache=cache))

    def next_logits(self, ids_BT: Tensor, positions_3BT: Tensor | None, cache: TokenCache) -> Tensor:
        """As ``first_logits``, of the token after ``ids_BT``, which go on where those in ``cache`` ended."""
        hidden_BTD = self._family.next_hidden_states(self.module, ids_BT, positions_3BT=positions_3BT, cache=cache)
        return self._last_logits(hidden_BTD)

    def _last_logits(self, hidden_1TD: Tensor) -> Tensor:
        logits_V: Tensor = self._family.output_layer(self.module)(hidden_1TD[0, -1])
        return logits_V.float()


def shard_module(
    whole: WholeForward, *, ranks: Ranks, train: TrainSection, precision: "MixedPrecisionPolicy"
) -> ExpertGroup | None:
    """Replace the parameters of ``whole`` by this rank's shares, in place. A run in one process keeps them.

    The expert group of this rank, None where every rank holds all experts.
    """
    if ranks.is_alone:
        return None
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    device = next(whole.parameters()).device.type
    reshard = {"default": None, "always": True, "never": False}[train.fsdp_reshard_after_forward]
    settings: dict[str, Any] = {
        "mp_policy": precision,
        "offload_policy": offload_policy(train, device=device),
    }
    if reshard is not None:
        settings["reshard_after_forward"] = reshard
    layers = [one for one in whole.modules() if type(one).__name__ in LAYERS]
    if not layers:
        raise AssertionError(f"no layer of {type(whole.module).__name__} is among {', '.join(LAYERS)}")
    mesh, group, experts, of_experts = ranks.mesh(device), None, [], None
    if ranks.expert > 1:
        expert_mesh = ranks.expert_mesh(device)
        group = share_experts(whole, ranks, expert_mesh["expert"])
        experts, of_experts = list(experts_of(whole)), expert_mesh["replicate", "shard"]
    whole.stays_whole = train.fsdp_reshard_after_forward == "never"
    for one, its_mesh in (*((one, of_experts) for one in experts), *((one, mesh) for one in (*layers, whole))):
        fully_shard(one, mesh=its_mesh, **settings)
        assert isinstance(one, FSDPModule)
        one.set_force_sum_reduction_for_comms(True)
        one.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all ranks already
    for name in ("first_logits", "next_logits"):
        register_fsdp_forward_method(whole, name)
    return group


def offload_policy(train: TrainSection, *, device: str) -> "OffloadPolicy":
    """Where shares of parameters, gradients and optimizer state are kept between their uses."""
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

    return CPUOffloadPolicy() if train.fsdp_offload and device == "cuda" else OffloadPolicy()


def defer_reduction(whole: WholeForward, *, more: bool) -> None:
    """Before a micro-batch: keep what only has to happen once a step until the last, where ``more`` follow.

    Sums over replicas always wait. Where parameters stay whole between passes (``reshard_after_forward = "never"``:
    memory was given for speed), gradients stay whole too and are shared out once a step.
    """
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(whole, FSDPModule):
        return
    whole.set_requires_all_reduce(not more)
    if whole.stays_whole:
        whole.set_requires_gradient_sync(not more)
        whole.set_reshard_after_backward(not more)


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
