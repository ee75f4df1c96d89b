"""Experts over ranks: each rank of an expert group holds some of every layer's experts, and all tokens come to it.

The ranks of a group have rows of their own. A layer gathers the tokens of the group, lets its own experts (grouped
matrix products) work on those that the routers sent them, and sums each token's results back to the rank that it came
from. Gathering costs about what sending each token to its experts' ranks would (with 8 experts a token over 8 ranks,
5.3 of them), and never waits for the device to learn how many tokens go where. Tensor names carry their shape: N tokens
of a rank, G tokens of the group, D width, K experts per token.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import pad
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from vlm_train.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

IMPLEMENTATION = "vlm_mix_expert_parallel"
"""Name of our way to run experts among those of transformers."""


class ExpertGroup:
    """The ranks that share the experts of this one, and how many tokens the fullest of them has."""

    def __init__(self, mesh: "DeviceMesh", ranks: Ranks) -> None:
        self.mesh = mesh
        self._ranks = ranks
        self._num_tokens = 0

    def begin(self, num_tokens: int) -> None:
        """Agree on the size of the next micro-batch, before its forward pass. All ranks must call it."""
        self._num_tokens = self._ranks.largest(num_tokens)

    def gather(self, values_N: Tensor, *, fill: int = 0) -> Tensor:
        """The tokens of all ranks of the group (G, ...), those of each filled up with ``fill``; gradients go back."""
        gathered_G: Tensor = _Gather.apply(_filled(values_N, self._num_tokens, fill), self.mesh.get_group())
        return gathered_G

    def give_back(self, values_G: Tensor, num_tokens: int) -> Tensor:
        """What all ranks of the group made of this rank's tokens (N, ...), summed."""
        summed_N: Tensor = _SumShare.apply(values_G, self.mesh.get_group())
        return summed_N[:num_tokens].clone()  # FSDP takes no views of what a collective gave


class _Gather(Function):
    """From each rank's tokens to those of all; backward sums what the ranks say of each token.

    Not torch's functional collectives: with those of torch 2.14 over gloo the heap was damaged now and then on a loaded
    machine (once in a loop of them alone), and grouped products crash on tensors that are still on their way.
    """

    @staticmethod
    def forward(ctx: Any, values_N: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _gathered(values_N, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed_share(gradients[0], ctx.group), None


class _SumShare(Function):
    """From what each rank has for all tokens to the sum over ranks for its own; backward gathers."""

    @staticmethod
    def forward(ctx: Any, values_G: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _summed_share(values_G, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _gathered(gradients[0], ctx.group), None


def _gathered(values_N: Tensor, group: Any) -> Tensor:
    import torch.distributed as dist

    gathered_G = values_N.new_empty((len(values_N) * group.size(), *values_N.shape[1:]))
    dist.all_gather_into_tensor(gathered_G, values_N.contiguous(), group=group)
    return gathered_G


def _summed_share(values_G: Tensor, group: Any) -> Tensor:
    import torch.distributed as dist

    summed_N = values_G.new_empty((len(values_G) // group.size(), *values_G.shape[1:]))
    dist.reduce_scatter_tensor(summed_N, values_G.contiguous(), group=group)
    return summed_N


def share_experts(module: nn.Module, ranks: Ranks, mesh: "DeviceMesh") -> ExpertGroup:
    """Leave this rank's experts in every layer of ``module``, in place; ``mesh`` is that of its expert group.

    What a state dict says of them, and what the optimizer and checkpoints see, stay the whole tensors, in shares.
    """
    from torch.distributed.tensor import Shard, distribute_tensor

    group = ExpertGroup(mesh, ranks)
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, _run_experts)
    for experts in experts_of(module):
        if experts.num_experts % mesh.size():
            raise AssertionError(f"{experts.num_experts} experts do not divide by {mesh.size()} ranks")
        for name, parameter in list(experts.named_parameters(recurse=False)):
            share = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
            setattr(experts, name, nn.Parameter(share, requires_grad=parameter.requires_grad))
        experts.expert_group = group
        experts.config._experts_implementation = IMPLEMENTATION
    return group


def experts_of(module: nn.Module) -> Iterator[Any]:
    """The modules that hold all experts of a layer, each weight as one tensor of (experts, ...)."""
    return (one for one in module.modules() if hasattr(one, "_is_expert_parallel"))


def _run_experts(module: Any, hidden_ND: Tensor, chosen_NK: Tensor, weights_NK: Tensor) -> Tensor:
    group: ExpertGroup = module.expert_group
    local = _LocalExperts(module, group.mesh.size())
    hidden_GD, weights_GK = group.gather(hidden_ND), group.gather(weights_NK)
    chosen_GK = group.gather(chosen_NK, fill=module.num_experts) - group.mesh.get_local_rank() * local.num_experts
    is_mine_GK = (chosen_GK >= 0) & (chosen_GK < local.num_experts)
    chosen_GK = chosen_GK.masked_fill(~is_mine_GK, local.num_experts)  # what is past the last expert costs nothing
    output_GD = grouped_mm_experts_forward(local, hidden_GD, chosen_GK, weights_GK)  # type: ignore[arg-type]
    return group.give_back(output_GD, len(hidden_ND))


class _LocalExperts:
    """The experts of a layer as transformers' grouped products take them: those of this rank."""

    _is_expert_parallel = True

    def __init__(self, module: Any, num_ranks: int) -> None:
        self._module = module
        self.num_experts: int = module.num_experts // num_ranks

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return (
            value.to_local() if isinstance(value, nn.Parameter | torch.Tensor) and hasattr(value, "to_local") else value
        )


def _filled(values_N: Tensor, size: int, fill: int) -> Tensor:
    missing = size - len(values_N)
    if missing < 0:
        raise AssertionError(f"{len(values_N)} tokens, but the ranks agreed on at most {size}")
    return pad(values_N, (0,) * (2 * values_N.dim() - 1) + (missing,), value=fill)
