"""Which pieces of shards an epoch table reads, when, and how much of them at a time: pure arithmetic over the plan.

The working set is what a cache must hold so that nothing is fetched twice without need. A dataset is read in passes,
and a pass goes through a shard within a block of shards (see draws.py): that is a visit. A piece counts from the first
to the last step of a visit; it may leave between two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
STEPS_BETWEEN_EPOCHS = 1 << 32
"""Ticks count steps over epochs: epoch x this + step."""


class ShardKey(NamedTuple):
    """A shard of the mix."""

    dataset: str
    part: str
    shard: int


@dataclass(frozen=True, slots=True)
class ShardLines:
    """The lines of an epoch table that read a shard: parallel arrays, in the order of the table."""

    keys: tuple[ShardKey, ...]
    """Every shard once."""
    shards: Numbers
    """For each line its shard, a number in ``keys``."""
    samples: Numbers
    """Index in the shard."""
    steps: Numbers

    def only(self, lines: NDArray[np.bool_]) -> "ShardLines":
        """Some of the lines."""
        return ShardLines(self.keys, self.shards[lines], self.samples[lines], self.steps[lines])


def shard_lines(table: pa.Table) -> ShardLines:
    """The lines of an epoch table (tables.EPOCH) without what only fills a step."""
    planned = np.asarray(table.column("status").to_numpy() == "planned")
    datasets, parts = (table.column(name).combine_chunks().dictionary_encode() for name in ("dataset", "part"))
    columns = [datasets.indices.to_numpy(), parts.indices.to_numpy(), table.column("shard").to_numpy()]
    of_dataset, of_part, of_shard = (column[planned].astype(np.int64) for column in columns)
    # One number a place: 10 times as fast as sorting rows of three.
    codes = (of_dataset * max(1, len(parts.dictionary)) + of_part) << 32 | of_shard
    _, firsts, shards = np.unique(codes, return_index=True, return_inverse=True)
    names, folders = datasets.dictionary.to_pylist(), parts.dictionary.to_pylist()
    unique = zip(of_dataset[firsts].tolist(), of_part[firsts].tolist(), of_shard[firsts].tolist(), strict=True)
    return ShardLines(
        keys=tuple(ShardKey(names[dataset], folders[part], shard) for dataset, part, shard in unique),
        shards=shards.reshape(-1),
        samples=table.column("index_in_shard").to_numpy()[planned].astype(np.int64),
        steps=table.column("step").to_numpy()[planned].astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class Visits:
    """When shards, or pieces of them, are in use: parallel arrays, in the order of their first steps."""

    shards: Numbers
    begins: Numbers
    """The first step."""
    ends: Numbers
    """The step after the last in which it may still be in use."""

    def bytes_in_use(self, sizes: Sequence[int]) -> tuple[Numbers, Numbers]:
        """(steps, bytes that are in use from each of them to the next), where shard n is of ``sizes[n]`` bytes."""
        changes = np.asarray(sizes, np.int64)[self.shards]
        steps, places = np.unique(np.concatenate([self.begins, self.ends]), return_inverse=True)
        by_step = np.zeros(len(steps), np.int64)
        np.add.at(by_step, places.reshape(-1), np.concatenate([changes, -changes]))
        return steps, np.cumsum(by_step)


def working_set(lines: ShardLines, sizes: Sequence[int], *, steps_ahead: int = 0) -> int:
    """The most bytes that are in use at once, where shard n of ``lines.keys`` is read as ``sizes[n]`` bytes.

    ``steps_ahead``: see ``visits_of``.
    """
    return int(visits_of(lines, steps_ahead=steps_ahead).bytes_in_use(sizes)[1].max(initial=0))


def visited_bytes(lines: ShardLines, sizes: Sequence[int]) -> int:
    """Bytes that come over the network where every visit of a shard fetches it anew."""
    return int(np.asarray(sizes, np.int64)[visits_of(lines).shards].sum())


def visits_of(lines: ShardLines, *, steps_ahead: int = 0) -> Visits:
    """The visits of every shard; those that meet are one.

    ``steps_ahead``: so many steps after its last one a shard may still be in use, because ranks and workers are not all
    at the same step.
    """
    passes = _times_before(lines.shards, lines.samples)
    order = np.lexsort((lines.steps, passes, lines.shards))
    shards, passes, steps = lines.shards[order], passes[order], lines.steps[order]
    firsts = np.flatnonzero(np.diff(shards, prepend=-1) | np.diff(passes, prepend=-1))
    if not len(firsts):
        return Visits(firsts, firsts, firsts)
    shards, begins = shards[firsts], steps[firsts]
    ends = np.maximum.reduceat(steps, firsts) + 1 + steps_ahead
    # Visits of one shard that meet become one: offsets keep the running maximum within a shard.
    by_begin = np.lexsort((begins, shards))
    shards, begins, ends = shards[by_begin], begins[by_begin], ends[by_begin]
    apart = shards * (int(ends.max()) + 1)
    reached = np.maximum.accumulate(ends + apart)
    starts = np.flatnonzero(np.concatenate([[True], begins[1:] + apart[1:] > reached[:-1]]))
    merged = Visits(shards[starts], begins[starts], np.maximum.reduceat(ends, starts))
    in_order = np.argsort(merged.begins, kind="stable")
    return Visits(merged.shards[in_order], merged.begins[in_order], merged.ends[in_order])


def _times_before(shards: Numbers, samples: Numbers) -> Numbers:
    """For each line how often its sample came before."""
    order = np.lexsort((samples, shards))  # stable: the lines of a sample stay in order
    is_new = np.diff(shards[order], prepend=-1).astype(bool) | np.diff(samples[order], prepend=-1).astype(bool)
    starts = np.flatnonzero(is_new)
    times = np.empty(len(shards), np.int64)
    times[order] = np.arange(len(shards)) - np.repeat(starts, np.diff(np.append(starts, len(shards))))
    return times


def coalesced(shards: Numbers, begins: Numbers, ends: Numbers, *, max_gap: int) -> tuple[Numbers, Numbers, Numbers]:
    """(number of the range of each line, begin and end of each range), in bytes of a shard.

    Lines of one shard share a range where no more than ``max_gap`` bytes that nobody asked for lie between them.
    """
    order = np.lexsort((begins, shards))
    apart = shards[order] * (int(ends.max(initial=0)) + max_gap + 1)
    reached = np.maximum.accumulate(ends[order] + apart)
    is_first = np.concatenate([[True], begins[order][1:] + apart[1:] > reached[:-1] + max_gap])[: len(order)]
    firsts = np.flatnonzero(is_first)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(is_first) - 1
    if not len(firsts):
        return numbers, firsts, firsts
    return numbers, begins[order][firsts], np.maximum.reduceat(ends[order], firsts)
