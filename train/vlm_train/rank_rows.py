"""Which rank takes which rows of a step: as many each, near their shards where that pays, patches spread evenly. Pure.

The step is the same for any number of ranks and nodes; only who computes a row changes (semantics C5).

Rows of one sample whose shards come over the network go to the node that their shard prefers, so that each node fetches
only some of the shards. Packed rows mix so many shards that every node fetches nearly all of them whatever is done, and
shards on a disk cost nothing to read twice: those go by patches alone, and so do all rows where nodes have different
numbers of ranks.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.hashing import order_key
from vlm_train.draws import OrderSettings
from vlm_train.fetch_plan import ShardKey

Flags = NDArray[np.bool_]
SHARDS_REMEMBERED = 1 << 16
"""Preferences kept in memory: more than the shards that are open at a time."""


class PlannedSample(Protocol):
    """What the sharing looks at of a sample in a row."""

    @property
    def dataset(self) -> str:
        """Its dataset; empty where the row only fills a step."""
        ...

    @property
    def part(self) -> str:
        """The converted part that holds it."""
        ...

    @property
    def shard(self) -> int:
        """Its shard in the part."""
        ...

    @property
    def vision_patches(self) -> int:
        """Patches of its media."""
        ...


Row = TypeVar("Row", bound=Sequence[PlannedSample])
Nodes = tuple[tuple[int, ...], ...]
"""The ranks of each machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSharing:
    """How the rows of every step of a run are shared out; equal on all ranks."""

    rows_per_step: int
    nodes: Nodes
    near_shards: frozenset[str] = frozenset()
    """Datasets whose rows go to the nodes that their shards prefer; needs rows of one sample and equal nodes."""

    @property
    def num_ranks(self) -> int:
        """Ranks of all nodes."""
        return sum(map(len, self.nodes))

    def wanted_shard(self, dataset: str, part: str, shard: int) -> ShardKey | None:
        """The shard that a row should be near to; None where any node will do."""
        return ShardKey(dataset, part, shard) if dataset in self.near_shards else None


def row_sharing(order: OrderSettings, *, nodes: Nodes, fetched: Iterable[str]) -> RowSharing:
    """How a run shares out its rows, where the shards of the datasets ``fetched`` come over the network."""
    pays = order.pack_tokens is None and len(nodes) > 1 and len(set(map(len, nodes))) == 1
    near_shards = frozenset(fetched) if pays else frozenset[str]()
    return RowSharing(rows_per_step=order.rows_per_step, nodes=nodes, near_shards=near_shards)


def equal_nodes(*, num_ranks: int, num_nodes: int) -> Nodes:
    """``num_ranks`` ranks on ``num_nodes`` machines, as launchers place them: 0, 1, ... on the first.

    Raises ConfigError where they do not divide.
    """
    if num_ranks % num_nodes:
        raise ConfigError(f"--nodes {num_nodes}: {num_ranks} ranks do not divide by it")
    each = num_ranks // num_nodes
    return tuple(tuple(range(node * each, (node + 1) * each)) for node in range(num_nodes))


def rows_of_rank(rows: Iterable[Row], *, sharing: RowSharing, rank: int) -> Iterator[Row]:
    """The rows of ``rank`` among ``rows``, which come step by step."""
    if sharing.num_ranks == 1:
        yield from rows
        return
    step: list[Row] = []
    for row in rows:
        step.append(row)
        if len(step) == sharing.rows_per_step:
            patches = [sum(sample.vision_patches for sample in one) for one in step]
            shards = [sharing.wanted_shard(one[0].dataset, one[0].part, one[0].shard) for one in step]
            yield from (step[place] for place in share_step(patches, shards, sharing=sharing)[rank])
            step = []
    if step:
        raise AssertionError(f"the epoch table ends within a step: {len(step)} of {sharing.rows_per_step} rows")


def share_step(patches: Sequence[int], shards: Sequence[ShardKey | None], *, sharing: RowSharing) -> list[list[int]]:
    """For each rank its rows, in order, given the vision patches and the wanted shard of each row of a step."""
    if not sharing.near_shards:
        return rows_of_ranks(patches, num_ranks=sharing.num_ranks)
    taken: list[list[int]] = [[] for _ in range(sharing.num_ranks)]
    for ranks, rows in zip(sharing.nodes, rows_of_nodes(patches, shards, num_nodes=len(sharing.nodes)), strict=True):
        of_ranks = rows_of_ranks([patches[row] for row in rows], num_ranks=len(ranks))
        for rank, places in zip(ranks, of_ranks, strict=True):
            taken[rank] = [rows[place] for place in places]
    return taken


def rows_of_nodes(patches: Sequence[int], shards: Sequence[ShardKey | None], *, num_nodes: int) -> list[list[int]]:
    """For each node its rows, in order and as many each; rows with ``shards`` go to the nodes that those prefer.

    Shards choose one after another, each the nodes that it prefers among those with room. Their turn and their
    preferences never change, so the rows of a shard that finds its node full go to the same other node step after step.
    (Were the smallest shards of a step to leave, each shard would leave in some step, and come from all nodes.)
    ``len(patches)`` must divide by ``num_nodes``.
    """
    room = len(patches) // num_nodes
    taken: list[list[int]] = [[] for _ in range(num_nodes)]
    of_shards: dict[ShardKey, list[int]] = {}
    for row, shard in enumerate(shards):
        if shard is not None:
            of_shards.setdefault(shard, []).append(row)
    for shard in sorted(of_shards, key=_turn):
        rows = of_shards[shard]
        for node in _preferred_nodes(shard, num_nodes):
            free = room - len(taken[node])
            taken[node] += rows[:free]
            rows = rows[free:]
    for row in _most_patches_first(patches, [row for row, shard in enumerate(shards) if shard is None]):
        load = [sum(patches[one] for one in rows) for rows in taken]
        taken[min((node for node in range(num_nodes) if len(taken[node]) < room), key=load.__getitem__)].append(row)
    return [sorted(rows) for rows in taken]


def rows_of_ranks(patches: Sequence[int], *, num_ranks: int) -> list[list[int]]:
    """For each rank its rows, in order, given the vision patches of each row of a step.

    Longest processing time first, with the same number of rows for every rank: the row with most patches goes to the
    rank that has fewest so far among those with room. ``len(patches)`` must divide by ``num_ranks``.
    """
    room = len(patches) // num_ranks
    taken: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0] * num_ranks
    for row in _most_patches_first(patches, range(len(patches))):
        rank = min((one for one in range(num_ranks) if len(taken[one]) < room), key=lambda one: (load[one], one))
        taken[rank].append(row)
        load[rank] += patches[row]
    return [sorted(rows) for rows in taken]


def lines_of_ranks(table: pa.Table, *, sharing: RowSharing, ranks: Collection[int]) -> Flags:
    """Which lines of an epoch table (whole steps) go to ``ranks``, as ``rows_of_rank`` shares them out."""
    if len(ranks) == sharing.num_ranks or table.num_rows == 0:
        return np.ones(table.num_rows, bool)
    of_rows = ranks_of_rows(table, sharing=sharing)
    steps, rows = (table.column(name).to_numpy() for name in ("step", "row"))
    return np.isin(of_rows[steps - steps[0], rows], list(ranks))


def ranks_of_rows(table: pa.Table, *, sharing: RowSharing) -> NDArray[np.int64]:
    """The rank of every row of an epoch table (whole steps, one at least): an array of (steps, rows of a step)."""
    steps, rows, patches = (
        table.column(name).to_numpy().astype(np.int64) for name in ("step", "row", "vision_patches")
    )
    size = sharing.rows_per_step
    places = (steps - steps[0]) * size + rows
    sums = np.bincount(places, weights=patches).astype(np.int64).reshape(-1, size)
    ranks = np.zeros(sums.shape, np.int64)
    if sharing.num_ranks > 1:
        wanted = _wanted_shards(table, places, sharing)
        for step, of_rows in enumerate(sums.tolist()):
            shards = wanted[step * size : (step + 1) * size]
            for rank, mine in enumerate(share_step(of_rows, shards, sharing=sharing)):
                ranks[step, mine] = rank
    return ranks


def _wanted_shards(table: pa.Table, places: NDArray[np.int64], sharing: RowSharing) -> list[ShardKey | None]:
    """Of every row, that of its first sample."""
    if not sharing.near_shards:
        return []
    _, firsts = np.unique(places, return_index=True)
    columns = (table.column(name).take(pa.array(firsts)).to_pylist() for name in ("dataset", "part", "shard"))
    return [sharing.wanted_shard(*place) for place in zip(*columns, strict=True)]


def _most_patches_first(patches: Sequence[int], rows: Iterable[int]) -> list[int]:
    return sorted(rows, key=lambda row: (-patches[row], row))


@lru_cache(SHARDS_REMEMBERED)
def _turn(shard: ShardKey) -> int:
    """When a shard chooses: no dataset is always first."""
    return order_key("turn", *shard)


@lru_cache(SHARDS_REMEMBERED)
def _preferred_nodes(shard: ShardKey, num_nodes: int) -> tuple[int, ...]:
    """All nodes, highest hash first (rendezvous hashing: Thaler and Ravishankar 1998)."""
    return tuple(sorted(range(num_nodes), key=lambda node: order_key("node", *shard, node), reverse=True))
