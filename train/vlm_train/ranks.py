"""The processes of a run: who I am, how we agree, and how rows and parameters are shared.

Started by ``vlm-train run`` itself, torchrun or Slurm, all through the environment that torch.distributed reads.
"""

import math
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError, StorageError
from vlm_catalogs.model_family import find_family

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """One process among those of a run."""

    rank: int
    """0 is the first: it alone prints and writes the files of the run."""
    size: int
    local_rank: int
    """Place on its machine, and number of its GPU."""
    replicate: int
    """Copies of the parameters."""
    shard: int
    """Ranks that share one copy."""
    expert: int = 1
    """Ranks among these that share out the experts of each layer."""
    group: Any = field(default=None, compare=False)
    """The process group that they talk over; None is the default one."""

    @property
    def is_first(self) -> bool:
        """True for the one that prints and writes."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """True for a run in one process."""
        return self.size == 1

    def mesh(self, device_type: str) -> "DeviceMesh":
        """Replicas over shards; one dimension where there is a single replica."""
        from torch.distributed.device_mesh import init_device_mesh

        if self.replicate == 1:
            return init_device_mesh(device_type, (self.shard,), mesh_dim_names=("shard",))
        return init_device_mesh(device_type, (self.replicate, self.shard), mesh_dim_names=("replicate", "shard"))

    def expert_mesh(self, device_type: str) -> "DeviceMesh":
        """Replicas over shards of experts over ranks that hold different experts: always three dimensions."""
        from torch.distributed.device_mesh import init_device_mesh

        sizes = (self.replicate, self.shard // self.expert, self.expert)
        return init_device_mesh(device_type, sizes, mesh_dim_names=("replicate", "shard", "expert"))

    def add_up(self, values: "Tensor") -> "Tensor":
        """``values``, summed over all ranks in place."""
        if not self.is_alone:
            import torch.distributed as dist

            dist.all_reduce(values, group=self.group)
        return values

    def gather(self, values: list[Answer]) -> list[Answer]:
        """The lists of all ranks as one, in their order."""
        if self.is_alone:
            return values
        import torch.distributed as dist

        lists: list[Any] = [None] * self.size
        dist.all_gather_object(lists, values, group=self.group)
        return [value for one in lists for value in one]

    def apart(self) -> "Ranks":
        """The same ranks over a group of their own, so that a thread may talk while training does; all call it."""
        if self.is_alone:
            return self
        import torch.distributed as dist

        return replace(self, group=dist.new_group(backend="gloo"))

    def nodes(self) -> tuple[tuple[int, ...], ...]:
        """The ranks of each machine, machines in the order of their first; all ranks call it together."""
        machines: dict[str, list[int]] = {}
        for rank, name in enumerate(self.gather([socket.gethostname()])):
            machines.setdefault(name, []).append(rank)
        return tuple(tuple(ranks) for ranks in machines.values())

    def largest(self, value: int) -> int:
        """The largest ``value`` of any rank, known to all."""
        if self.is_alone:
            return value
        import torch
        import torch.distributed as dist

        shared = torch.tensor(value)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self.group)
        return int(shared)

    def wait(self) -> None:
        """Wait until every rank is here."""
        if not self.is_alone:
            import torch.distributed as dist

            dist.barrier(group=self.group)

    def first_then_all(self, work: Callable[[], Answer]) -> Answer:
        """``work`` of the first rank, then of the others: what it writes is there for them."""
        if self.is_first:
            answer = work()
            self.wait()
            return answer
        self.wait()
        return work()


ALONE = Ranks(rank=0, size=1, local_rank=0, replicate=1, shard=1)


def parallelism_of(config: Config) -> tuple[int, int]:
    """(replicas, shards) as the TOML asks for them; -1 shards, what is left, also where it does not say."""
    parallelism = config.policy.parallelism
    said = "policy.parallelism.dp_shard_size" in config.lines
    shard = parallelism.dp_shard_size if said else -1
    # Ranks of an expert group have rows and shares of the other parameters like any other.
    return parallelism.dp_replicate_size, shard if shard == -1 else shard * parallelism.tp_size


def share_ranks(replicate: int, shard: int, *, size: int) -> tuple[int, int]:
    """(replicas, shards) of ``size`` ranks. Raises ConfigError, with values that work, when they do not multiply."""
    if shard == -1 and size % replicate == 0:
        return replicate, size // replicate
    if shard == -1 or replicate * shard != size:
        works = ", ".join(f"{one} x {size // one}" for one in range(1, size + 1) if size % one == 0)
        raise ConfigError(
            f"policy.parallelism: dp_replicate_size {replicate} x dp_shard_size {shard} is not the number of ranks, "
            f"{size}; {works} would be (dp_shard_size = -1 takes what is left)"
        )
    return replicate, shard


def expert_ranks(config: Config, *, shard: int) -> int:
    """How many ranks share out the experts, given how many share a copy of the parameters.

    ``ep_size``; for Nemotron also ``tp_size``, which the original reads so. Raises ConfigError for another model's
    ``tp_size``, and for a number that divides neither ``shard`` nor the experts of the model.
    """
    parallelism = config.policy.parallelism
    if parallelism.ep_size == parallelism.tp_size == 1:
        return 1
    policy = config.policy
    family = find_family(policy.model_name_or_path, revision=policy.model_revision)
    key = "policy.parallelism.tp_size" if parallelism.tp_size > 1 else "policy.parallelism.ep_size"
    where = f"{config.where(key)}: {key}"
    if parallelism.tp_size > 1 and family.family != "nemotron_vl":
        raise ConfigError(f"{where}: tensor parallelism is not built; set it to 1, and ep_size to share out experts")
    asked = max(parallelism.tp_size, parallelism.ep_size)
    if min(parallelism.tp_size, parallelism.ep_size) not in (1, asked):
        raise ConfigError(f"{where}: for Nemotron tp_size and ep_size are the same number; leave one of them out")
    if family.num_experts == 0:
        raise ConfigError(f"{where}: {policy.model_name_or_path} has no experts to share out; set it to 1")
    if shard % asked or (family.num_experts or asked) % asked:
        of_model = f" and {family.num_experts} experts" if family.num_experts else ""
        limit = math.gcd(shard, family.num_experts or shard)
        works = ", ".join(str(one) for one in range(1, limit + 1) if limit % one == 0)
        raise ConfigError(
            f"{where}: {asked} does not divide {shard} ranks of one copy of the parameters{of_model}; {works} would do"
        )
    return asked


def ranks_of(config: Config, environment: Mapping[str, str] = os.environ) -> Ranks:
    """What a launcher's environment says of this process. Raises ConfigError when it does not fit the TOML."""
    size = _number(environment, "WORLD_SIZE", 1)
    replicate, shard = share_ranks(*parallelism_of(config), size=size)
    rank, local_rank = _number(environment, "RANK", 0), _number(environment, "LOCAL_RANK", 0)
    expert = expert_ranks(config, shard=shard)
    return Ranks(rank=rank, size=size, local_rank=local_rank, replicate=replicate, shard=shard, expert=expert)


def join(ranks: Ranks) -> None:
    """Meet the other ranks. Raises StorageError when they cannot be reached."""
    if ranks.is_alone:
        return
    import torch
    import torch.distributed as dist

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(ranks.local_rank)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=ranks.rank, world_size=ranks.size)
    except (RuntimeError, ValueError) as error:
        raise StorageError(f"rank {ranks.rank} of {ranks.size}: cannot meet the others: {error}") from error


def leave(ranks: Ranks) -> None:
    """End what ``join`` began."""
    if not ranks.is_alone:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text: Any = environment.get(name, default)
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name} = {text!r} in the environment: expected a whole number") from error
