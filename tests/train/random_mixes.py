"""Mixes to draw from, made of numbers alone: any sizes, shards, alternatives and lengths, quickly."""

import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vlm_prep.shares import Selected, dataset_draws
from vlm_train.draws import DatasetToDraw, OrderSettings

MAX_LENGTH = 64


def dataset(
    name: str,
    size: int,
    *,
    draws: int,
    draw_tokens: int | None = None,
    seed: int = 0,
    shortest: int = 4,
    longest: int = MAX_LENGTH,
    alternatives: int = 1,
    samples_per_shard: int = 7,
) -> DatasetToDraw:
    """``size`` samples of evenly spread lengths, the first of which is as long as a row may be."""
    noise = np.random.default_rng([seed, *name.encode()])
    counts = noise.integers(1, alternatives + 1, size).astype(np.int32)
    lengths = noise.integers(shortest, longest + 1, int(counts.sum())).astype(np.int32)
    lengths[0] = longest
    owners = np.repeat(np.arange(size), counts)
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    keys = noise.integers(0, 2**64, size, np.uint64)
    places = np.arange(size)
    shards = places // samples_per_shard
    samples = {
        "sample_id": [f"{name}#{place:09d}" for place in places.tolist()],
        "sample_key": keys,
        "part": [f"part-{shard // 5}" for shard in shards.tolist()],
        "shard": (shards % 5).astype(np.int32),
        "index_in_shard": (places % samples_per_shard).astype(np.int32),
        "num_alternatives": counts,
        "total_tokens": np.maximum.reduceat(lengths, firsts),
    }
    rows = noise.permutation(len(owners))  # lengths stand in any order
    table = {
        "sample_key": keys[owners],
        "alternative": (np.arange(len(owners)) - firsts[owners]).astype(np.int32),
        "total_tokens": lengths,
        "supervised_tokens": np.maximum(1, lengths // 2),
        "vision_patches": noise.integers(0, 400, len(owners)).astype(np.int32),
    }
    return DatasetToDraw(
        name=name,
        num_draws=draws,
        draw_tokens=draw_tokens,
        samples=pa.table(samples),
        lengths=pa.table({column: values[rows] for column, values in table.items()}),
    )


@dataclass(frozen=True)
class RandomMix:
    """A mix with the weights that it was made of, and an order."""

    datasets: list[DatasetToDraw]
    weights: dict[str, float]
    unit: str
    order: OrderSettings
    epoch_samples: int


def random_mix(seed: int) -> RandomMix:
    """A mix as nobody would make it by hand: every dataset and setting by ``seed``."""
    draw = random.Random(seed)
    sizes = {
        f"d{number}": draw.choice([1, 2, draw.randint(1, 40), draw.randint(1, 200)])
        for number in range(draw.randint(1, 6))
    }
    weights = {name: draw.choice([1.0, draw.random() + 0.01, 10 ** draw.uniform(-6, 0)]) for name in sizes}
    unit = draw.choice(["samples", "samples", "tokens", "repeats"])
    made = {
        name: dataset(
            name, size, draws=0, seed=seed, alternatives=draw.choice([1, 1, 3]), shortest=draw.choice([2, 20, 64]),
            samples_per_shard=draw.randint(1, 30),
        )
        for name, size in sizes.items()
    }  # fmt: skip
    tokens = {name: int(one.samples["total_tokens"].to_numpy().sum()) for name, one in made.items()}
    selected = {
        name: Selected(weight=weights[name], repeat_factor=1.0, num_samples=size, num_tokens=tokens[name])
        for name, size in sizes.items()
    }
    epoch_samples = draw.choice([1, draw.randint(1, 400), sum(sizes.values())])
    epoch_tokens = draw.randint(MAX_LENGTH, 9_000)
    counts = dataset_draws(selected, weight_unit=unit, epoch_samples=epoch_samples, epoch_tokens=epoch_tokens)  # type: ignore[arg-type]
    datasets = [
        DatasetToDraw(
            name=name, num_draws=counts[name].num_draws, draw_tokens=counts[name].draw_tokens, samples=one.samples,
            lengths=one.lengths,
        )
        for name, one in made.items()
    ]  # fmt: skip
    order = OrderSettings(
        seed=seed,
        rows_per_step=draw.choice([1, 2, 6, 12, draw.randint(1, 16), 500]),
        shuffle=draw.random() < 0.9,
        drop_last=draw.random() < 0.2,
        pack_tokens=draw.choice([None, MAX_LENGTH, MAX_LENGTH, MAX_LENGTH * 4]),
    )
    return RandomMix(datasets, weights, unit, order, epoch_samples)
