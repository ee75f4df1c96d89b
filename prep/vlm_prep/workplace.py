"""Where a build works and with what: its folders, its memory, its engine."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_prep.staging import staging_folder
from vlm_prep.stores import stores_of
from vlm_prep.workers import RunTasks, num_processes, run_tasks

WORKER_BYTES = 1 << 30
"""What a converting process may need, at most: the tests hold one to it for samples of the largest size."""
INDEX_SHARE = 0.75
"""Of ``max_memory`` for DuckDB; the rest is for the process around it."""
SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)i?B?", re.IGNORECASE)
UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
LEAST_MEMORY = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """One build's own folders, which go when it ends, and its limits."""

    staging: Path
    """On the disk of the shards: what is converted stands here until it is renamed."""
    scratch: Path
    """For what is needed only meanwhile: inputs fetched from S3, and what DuckDB cannot hold in memory."""
    max_memory: int | None
    """Bytes; None is what the machine has."""
    num_workers: int
    """As asked; 0 is every core."""
    run_tasks: RunTasks = run_tasks
    """Runs them on the engine."""
    num_cluster_cpus: int | None = None
    """With Ray: of all its nodes."""

    @property
    def index_memory(self) -> int | None:
        """Bytes that DuckDB may use."""
        return None if self.max_memory is None else int(INDEX_SHARE * self.max_memory)

    def num_processes(self, *, is_small: bool) -> int:
        """As asked, else one for small work, else one for each core; never more than this machine's memory is for."""
        if self.num_cluster_cpus is not None:
            return self.num_workers or self.num_cluster_cpus
        wanted = num_processes(self.num_workers, is_small=is_small)
        return wanted if self.max_memory is None else max(1, min(wanted, self.max_memory // WORKER_BYTES))


@contextmanager
def workplace(config: Config) -> Iterator[Workplace]:
    """The workplace of one build; its folders are removed at the end. Raises ConfigError or StorageError."""
    max_memory = memory_limit(config)
    with ExitStack() as stack:
        run, num_cpus = run_tasks, None
        if config.mix.engine == "ray":
            from vlm_prep.ray_tasks import joined_cluster, run_on_ray

            run, num_cpus = run_on_ray, stack.enter_context(joined_cluster())
        staging = stack.enter_context(stores_of(config).shards.staging())
        scratch = (
            staging if config.mix.scratch is None else stack.enter_context(staging_folder(Path(config.mix.scratch)))
        )
        yield Workplace(
            staging=staging,
            scratch=scratch,
            max_memory=max_memory,
            num_workers=config.mix.num_workers,
            run_tasks=run,
            num_cluster_cpus=num_cpus,
        )


def memory_limit(config: Config) -> int | None:
    """``[mix] max_memory`` in bytes; None where it is not set. Raises ConfigError."""
    text = config.mix.max_memory
    if text is None:
        return None
    found = SIZE.fullmatch(text.strip())
    where = f"{config.where('mix.max_memory')}: mix.max_memory"
    if found is None:
        raise ConfigError(f"{where}: expected a size such as '8GB' or '900MB', got {text!r}")
    size = int(float(found[1]) * (1 << UNITS[found[2].upper()]))
    if size < LEAST_MEMORY:
        raise ConfigError(f"{where}: {text!r} is too little; a build needs at least '{LEAST_MEMORY >> 20}MB'")
    return size
