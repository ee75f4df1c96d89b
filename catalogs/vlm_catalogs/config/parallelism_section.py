"""The section of a TOML that says how ranks share the work."""

from dataclasses import dataclass
from typing import Annotated

from vlm_catalogs.config.values import Bound, PositiveCount


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelismSection:
    """[policy.parallelism]: how ranks share the work."""

    dp_shard_size: Annotated[int, Bound(low=-1)] = 1
    """Ranks that share one copy of the parameters; -1, and leaving it out, takes all GPUs that are left."""
    dp_replicate_size: PositiveCount = 1
    """Copies of the parameters."""
    tp_size: PositiveCount = 1
    """For Nemotron: as ep_size, and the number of ranks is multiplied by it, as in cosmos-rl; else 1."""
    ep_size: PositiveCount = 1
    """Ranks, among those that share a copy of the parameters, that share out the experts of each layer."""
    cp_size: PositiveCount = 1
    pp_size: PositiveCount = 1
    n_init_replicas: PositiveCount = 1
