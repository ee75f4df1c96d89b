"""Datasets to draw from without shards: the columns that planning an epoch reads, of any number of samples."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_train.draws import DatasetToDraw


def dataset_to_draw(
    number: int,
    *,
    keys: NDArray[np.uint64],
    tokens: NDArray[np.int32],
    patches: NDArray[np.int32],
    samples_per_shard: int,
    shards_per_part: int,
) -> DatasetToDraw:
    """The dataset of that number, whose every sample is drawn once an epoch; half of the tokens are supervised."""
    size, name = len(keys), f"dataset-{number:03d}"
    places = np.arange(size)
    shards = places // samples_per_shard
    parts = [f"part-{part:05d}" for part in range(size // samples_per_shard // shards_per_part + 1)]
    samples = {
        "sample_id": pa.array([f"{name}/part-000.tar/{place:09d}" for place in places.tolist()]),
        "sample_key": keys,
        "part": pa.DictionaryArray.from_arrays((shards // shards_per_part).astype(np.int32), parts),
        "shard": (shards % shards_per_part).astype(np.int32),
        "index_in_shard": (places % samples_per_shard).astype(np.int32),
        "num_alternatives": np.ones(size, np.int32),
        "total_tokens": tokens,
    }
    lengths = {
        "sample_key": keys,
        "alternative": np.zeros(size, np.int32),
        "total_tokens": tokens,
        "supervised_tokens": tokens // 2,
        "vision_patches": patches,
    }
    return DatasetToDraw(name=name, num_draws=size, samples=pa.table(samples), lengths=pa.table(lengths))
