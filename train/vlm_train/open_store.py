"""What reads the samples of a run, set up as its TOML says, and what reading cost."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_train.open_mix import OpenMix
from vlm_train.ranks import Ranks
from vlm_train.remote_shards import RemoteShards
from vlm_train.run_plan import RunPlan
from vlm_train.sample_store import SampleStore
from vlm_train.stream import ROWS_AHEAD_PER_WORKER


def open_store(config: Config, mix: OpenMix, plan: RunPlan, ranks: Ranks) -> SampleStore:
    """What reads the samples of the mix: local shards where they lie, those of an object store through a cache.

    Raises ConfigError for a cache folder that holds something else.
    """
    if not mix.remote:
        return SampleStore(mix)
    ahead = steps_ahead(config, rows_per_step=plan.order.rows_per_step, num_ranks=ranks.size)
    fact(f"shards: fetched as {config.stream.fetch} into {config.stream.cache}")
    return SampleStore(mix, RemoteShards(mix, mix.copies.objects, config.stream, steps_ahead=ahead))


def open_for_few(config: Config, mix: OpenMix) -> SampleStore:
    """What reads single samples, with nothing around them. Raises ConfigError as ``open_store``."""
    if not mix.remote:
        return SampleStore(mix)
    return SampleStore(
        mix, RemoteShards(mix, mix.copies.objects, replace(config.stream, fetch="ranges", fetch_ahead=0))
    )


def steps_ahead(config: Config, *, rows_per_step: int, num_ranks: int) -> int:
    """How many steps the ranks of a node and their workers may be apart."""
    rows_ahead = num_workers(config) * ROWS_AHEAD_PER_WORKER
    return 1 + ceil(rows_ahead * num_ranks / rows_per_step)


def num_workers(config: Config) -> int:
    """Threads that encode ahead."""
    return config.stream.num_workers or config.train.train_policy.dataloader_num_workers


def reads_since(store: SampleStore) -> tuple[int, ...]:
    """Samples, those that were waited for, and bytes that this rank read from an object store since the last call.

    Nothing where all is local.
    """
    mine = store.take_reads()
    return () if mine is None else (mine.num_samples, mine.num_waited, mine.num_bytes)


def fetch_metrics(reads: Sequence[float]) -> dict[str, float]:
    """What reading from an object store cost: the sums of ``reads_since`` over the ranks."""
    if not reads:
        return {}
    num_samples, num_waited, num_bytes = reads
    return {"data/fetched_bytes": int(num_bytes), "data/cache_hit_share": 1 - num_waited / max(1, num_samples)}
