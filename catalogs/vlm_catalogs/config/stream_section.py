"""The section of a TOML that says how training reads its data."""

from dataclasses import dataclass
from typing import Literal

from vlm_catalogs.config.values import Count, PositiveCount


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSection:
    """[stream]: how training reads the shards."""

    rows_per_step: PositiveCount | None = None
    """Rows of one optimizer step over all ranks; None is train_batch_per_replica x ranks at the first start."""
    max_bad_samples: Count = 0
    """Samples that match their hash but do not decode before the run stops; 0 stops at the first."""
    num_workers: Count = 0
    """Threads that read and decode a whole step ahead, or 4 rows each where that is more; 0 does so between steps."""
    fetch: Literal["shards", "ranges"] = "shards"
    """What is fetched of shards in an object store: ``shards`` all of each, ``ranges`` the samples that the plan draws,
    with their neighbours where little lies between; for mixes that draw few samples of each shard."""
    cache: str = "shard_cache"
    """Folder for what is fetched, on a disk of this machine; its processes and other runs share it."""
    cache_limit: PositiveCount | None = None
    """Bytes that the cache may hold, at most; None is what the disk has, but for 256 MiB."""
    fetch_ahead: Count = 1_073_741_824
    """Bytes that are fetched before their step comes, at most; 0 fetches what is asked for only."""
    log_sample_loss: bool = True
    """Write the loss of every sample of every step to ``<output_dir>/sample_loss``."""
