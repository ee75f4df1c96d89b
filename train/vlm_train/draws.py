"""What an epoch draws from each dataset, and when: exact, seeded, without any packing (semantics C2).

A dataset is an endless concatenation of seeded permutations; an epoch takes the stretch that belongs to it. By samples,
epoch e takes draws [e * n, (e + 1) * n). By tokens, a stretch ends where the running total of tokens is nearest
(e + 1) * target. A permutation is shard-local: shards are shuffled, then samples within blocks of shards, so that
reading from far away stays sequential.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import order_key, order_keys

SHARDS_PER_BLOCK = 8
"""Samples are shuffled within this many shards (64 MiB each): a bounded cache holds them all."""

Indices = NDArray[np.int64]
Keys = NDArray[np.uint64]
Counts = NDArray[np.int32]
Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetToDraw:
    """One dataset of the mix: what may be drawn and how often."""

    name: str
    num_draws: int
    """Draws of one epoch; with ``draw_tokens`` only about how many."""
    draw_tokens: int | None = None
    """Tokens of one epoch, where the mix is weighed by tokens."""
    samples: pa.Table
    """The selected training samples in source order: columns of tables.SELECTION."""
    lengths: pa.Table
    """tables.LENGTHS of at least these samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSettings:
    """What decides the order of an epoch, beside the mix."""

    seed: int
    rows_per_step: int
    shuffle: bool = True
    """False: every dataset in source order; datasets are still merged evenly."""
    drop_last: bool = False
    """True: a short last step is left out; False: it is filled with empty rows."""
    pack_tokens: int | None = None
    """Tokens that a row of several samples holds; None: one sample a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The draws of one dataset in one epoch, in order: parallel arrays."""

    samples: Indices
    """Rows of ``DatasetToDraw.samples``."""
    lengths: Indices
    """Rows of ``DatasetToDraw.lengths``."""
    alternatives: Counts
    tokens: Counts
    times: Times
    """When, in [0, 1] of the epoch; ascending."""


def draw_epoch(dataset: DatasetToDraw, *, epoch: int, order: OrderSettings) -> Draws:
    """The draws of ``dataset`` in ``epoch``.

    Raises DataError when it has draws but no sample, or a drawn sample has no length.
    """
    samples = dataset_order(dataset, epoch=epoch, order=order)
    sample_keys = dataset.samples.column("sample_key").to_numpy()[samples]
    num_alternatives = dataset.samples.column("num_alternatives").to_numpy()[samples]
    alternatives = choose_alternatives(sample_keys, num_alternatives, seed=order.seed, epoch=epoch)
    lengths = _length_rows(dataset, sample_keys, alternatives)
    return Draws(
        samples=samples,
        lengths=lengths,
        alternatives=alternatives,
        tokens=dataset.lengths.column("total_tokens").to_numpy()[lengths],
        times=_draw_times(dataset, samples, epoch=epoch, order=order),
    )


def dataset_order(dataset: DatasetToDraw, *, epoch: int, order: OrderSettings) -> Indices:
    """The rows of ``dataset.samples`` that the epoch draws, in order (before datasets are merged)."""
    size = dataset.samples.num_rows
    if size == 0:
        raise DataError(f"{dataset.name}: {dataset.num_draws} draws are planned, but no sample is selected")
    begin, end = _stretch(dataset, epoch=epoch, order=order)
    passes = range(begin // size, max(begin, end - 1) // size + 1)
    whole = np.concatenate([_permutation(dataset, pass_number=number, order=order) for number in passes])
    return whole[begin - passes.start * size : end - passes.start * size]


def choose_alternatives(sample_keys: Keys, counts: Counts, *, seed: int, epoch: int) -> Counts:
    """Which conversation of each sample this epoch shows (semantics A8)."""
    return (mixed_keys(sample_keys, seed, epoch) % counts.astype(np.uint64)).astype(np.int32)


def mixed_keys(keys: Keys, *prefix: object) -> Keys:
    """A seeded 64-bit key for each of ``keys``, which are evenly spread hashes themselves; no two become equal.

    The finalizer of splitmix64 (Steele, Lea, Flood 2014) over the key and a salt hashed from ``prefix``: every step can
    be undone, so that keys that differ stay different.
    """
    mixed = keys ^ np.uint64(order_key(*prefix))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _stretch(dataset: DatasetToDraw, *, epoch: int, order: OrderSettings) -> tuple[int, int]:
    """Which draws of the endless sequence are this epoch's: [begin, end)."""
    if dataset.draw_tokens is None:
        return epoch * dataset.num_draws, (epoch + 1) * dataset.num_draws
    return (
        _draws_nearest(dataset, epoch * dataset.draw_tokens, order=order),
        _draws_nearest(dataset, (epoch + 1) * dataset.draw_tokens, order=order),
    )


def _draws_nearest(dataset: DatasetToDraw, tokens: int, *, order: OrderSettings) -> int:
    """After how many draws the running total is nearest ``tokens``; the fewer where two are as near."""
    weights = _weights(dataset)
    passes, rest = divmod(tokens, int(weights.sum()))
    totals = np.cumsum(weights[_permutation(dataset, pass_number=passes, order=order)], dtype=np.int64)
    after = int(np.searchsorted(totals, rest, side="left"))
    before_tokens = int(totals[after - 1]) if after else 0
    return passes * len(weights) + (after if rest - before_tokens <= int(totals[after]) - rest else after + 1)


def _weights(dataset: DatasetToDraw) -> Indices:
    """Tokens of each sample's longest conversation: what shares by tokens go by."""
    weights: Indices = dataset.samples.column("total_tokens").to_numpy().astype(np.int64)
    return weights


def _permutation(dataset: DatasetToDraw, *, pass_number: int, order: OrderSettings) -> Indices:
    if not order.shuffle:
        return np.arange(dataset.samples.num_rows)
    shards, shard_of_sample = _shards(dataset.samples)
    shard_keys = np.array(order_keys((order.seed, pass_number, dataset.name), shards), np.uint64)
    shard_rank = np.empty(len(shards), np.int64)
    shard_rank[np.argsort(shard_keys, kind="stable")] = np.arange(len(shards))
    blocks = shard_rank[shard_of_sample] // SHARDS_PER_BLOCK
    keys = mixed_keys(dataset.samples.column("sample_key").to_numpy(), order.seed, pass_number, dataset.name)
    return np.lexsort((keys, blocks))


def _shards(samples: pa.Table) -> tuple[list[str], Indices]:
    """The names ``part/shard`` and, for each sample, which of them it stands in."""
    parts = samples.column("part").combine_chunks()
    if not pa.types.is_dictionary(parts.type):
        parts = parts.dictionary_encode()
    numbers = samples.column("shard").to_numpy().astype(np.int64)
    codes = parts.indices.to_numpy().astype(np.int64) << 32 | numbers
    unique, shard_of_sample = np.unique(codes, return_inverse=True)
    names = parts.dictionary.to_pylist()
    return [f"{names[code >> 32]}/{code & 0xFFFFFFFF}" for code in unique.tolist()], shard_of_sample


def _draw_times(dataset: DatasetToDraw, samples: Indices, *, epoch: int, order: OrderSettings) -> Times:
    """Evenly over the epoch, from a seeded offset; by tokens, a long sample takes more of the time than a short one."""
    offset = order_key(order.seed, epoch, dataset.name) / 2**64 if order.shuffle else 0.5
    if dataset.draw_tokens is None or not len(samples):
        return (np.arange(len(samples)) + offset) / max(1, len(samples))
    weights = _weights(dataset)[samples]
    ends = np.cumsum(weights)
    times: Times = (ends - weights + offset * weights) / ends[-1]
    return times


def _length_rows(dataset: DatasetToDraw, sample_keys: Keys, alternatives: Counts) -> Indices:
    """The rows of ``dataset.lengths`` that belong to the draws."""
    keys = dataset.lengths.column("sample_key").to_numpy()
    known_alternatives = dataset.lengths.column("alternative").to_numpy()
    by_key = np.lexsort((known_alternatives, keys))
    # A sample's alternatives stand side by side from 0, so its first row plus the alternative is the row looked for.
    places = np.searchsorted(keys[by_key], sample_keys) + alternatives
    rows = by_key[np.minimum(places, len(keys) - 1)] if len(keys) else np.empty(0, np.int64)
    if not (np.array_equal(keys[rows], sample_keys) and np.array_equal(known_alternatives[rows], alternatives)):
        raise DataError(f"{dataset.name}: a selected sample has no measured length; run vlm-prep build-mix again")
    return rows
