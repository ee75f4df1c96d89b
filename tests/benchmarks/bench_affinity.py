"""Rows to nodes by shard against by patches alone: which shards a node fetches, how evenly the work is spread.

Nodes of 8 ranks with 4 rows each; rows of one sample from 1, 10 or 100 datasets in shards of 640 samples, patches with
a coefficient of variation of 1, all seeded; one epoch. Peer: the same epoch shared out by patches alone. One JSON line
for each number of datasets and nodes: the share of all shards that a node fetches (1 / nodes were no shard read twice),
patches of the slowest rank of a step over the mean rank's, and CPU seconds to share out 100,000 rows.
"""

import json
import time

import numpy as np
import pyarrow as pa
from synthetic_draws import dataset_to_draw

from vlm_train.draws import DatasetToDraw, OrderSettings
from vlm_train.epoch import plan_epoch
from vlm_train.fetch_plan import shard_lines
from vlm_train.rank_rows import RowSharing, equal_nodes, ranks_of_rows, row_sharing

NUM_SAMPLES = 128_000
SAMPLES_PER_SHARD, SHARDS_PER_PART = 640, 20
RANKS_PER_NODE, ROWS_PER_RANK = 8, 4
CASES = [(datasets, nodes) for datasets in (1, 10, 100) for nodes in (2, 4, 8)]


def dataset(number: int, size: int) -> DatasetToDraw:
    """A dataset of ``size`` samples, their lengths apart from their patches."""
    noise = np.random.default_rng(number)
    return dataset_to_draw(
        number,
        keys=noise.integers(0, 2**64, size, np.uint64),
        tokens=noise.lognormal(6, 0.8, size).clip(1, 4096).astype(np.int32),
        patches=noise.lognormal(6, np.sqrt(np.log(2)), size).astype(np.int32),
        samples_per_shard=SAMPLES_PER_SHARD,
        shards_per_part=SHARDS_PER_PART,
    )


def measured(table: pa.Table, sharing: RowSharing) -> tuple[float, float, float]:
    """(share of the shards that a node fetches, slowest rank over the mean, CPU seconds for 100,000 rows)."""
    began = time.process_time()
    ranks = ranks_of_rows(table, sharing=sharing)
    seconds = time.process_time() - began
    is_planned = table["status"].to_numpy() == "planned"
    lines = shard_lines(table)
    nodes = ranks.reshape(-1)[: len(is_planned)][is_planned] // RANKS_PER_NODE
    num_reads = len(np.unique(lines.shards * len(sharing.nodes) + nodes))
    steps = np.repeat(np.arange(len(ranks)), sharing.rows_per_step)
    patches = np.bincount(steps * sharing.num_ranks + ranks.reshape(-1), weights=table["vision_patches"].to_numpy())
    by_rank = patches.reshape(len(ranks), -1)
    slowest = float((by_rank.max(axis=1) / by_rank.mean(axis=1)).mean())
    return num_reads / len(lines.keys) / len(sharing.nodes), slowest, seconds * 100_000 / table.num_rows


def main() -> None:
    """Print every figure."""
    for num_datasets, num_nodes in CASES:
        mix = [dataset(number, NUM_SAMPLES // num_datasets) for number in range(num_datasets)]
        order = OrderSettings(seed=0, rows_per_step=num_nodes * RANKS_PER_NODE * ROWS_PER_RANK)
        table = plan_epoch(mix, epoch=0, order=order)
        nodes = equal_nodes(num_ranks=num_nodes * RANKS_PER_NODE, num_nodes=num_nodes)
        fetched = [one.name for one in mix]
        ours, slowest, seconds = measured(table, row_sharing(order, nodes=nodes, fetched=fetched))
        peer, peer_slowest, peer_seconds = measured(table, row_sharing(order, nodes=nodes, fetched=[]))
        figures = {
            "value": ours, "unit": "of all shards", "peer": "by patches alone", "peer_value": peer,
            "ratio": peer / ours, "slowest_rank": slowest, "peer_slowest_rank": peer_slowest,
            "seconds": seconds, "peer_seconds": peer_seconds,
        }  # fmt: skip
        rounded = {name: round(one, 3) if isinstance(one, float) else one for name, one in figures.items()}
        about = {"datasets": num_datasets, "nodes": num_nodes}
        print(json.dumps({"figure": "shards that a node fetches", **rounded, **about}), flush=True)


if __name__ == "__main__":
    main()
