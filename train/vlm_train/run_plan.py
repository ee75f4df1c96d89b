"""The numbers of a run, decided before anything is loaded: rows, steps, schedule, order. Pure, no torch."""

from dataclasses import dataclass

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_train.epoch import OrderSettings, steps_per_epoch
from vlm_train.schedule import Schedule, total_steps, warmup_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """How long a run is and what its steps are made of."""

    order: OrderSettings
    mini_batch: int
    steps_per_epoch: int
    schedule: Schedule

    @property
    def total_steps(self) -> int:
        """Where training ends."""
        return self.schedule.total_steps

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.order.rows_per_step} rows a step in micro-batches of {self.mini_batch}, "
            f"{self.steps_per_epoch} steps an epoch, {self.schedule.describe()}"
        )


def plan_run(config: Config, *, num_draws: int, num_ranks: int = 1, known_rows: int | None = None) -> RunPlan:
    """The plan of a run whose epochs draw ``num_draws`` samples; ``known_rows`` a step were settled by its first start.

    Raises ConfigError, listing values that work, when rows, ranks and micro-batches do not fit (semantics C1).
    """
    policy = config.train.train_policy
    order = order_settings(config, num_ranks=num_ranks, known_rows=known_rows)
    per_epoch = steps_per_epoch(num_draws, order=order)
    if per_epoch == 0:
        raise ConfigError(
            f"an epoch of {num_draws} samples is shorter than one step of {order.rows_per_step} rows, and "
            "dataloader_drop_last drops it; lower train.train_batch_per_replica"
        )
    steps = total_steps(steps_per_epoch=per_epoch, epochs=config.train.epoch, max_num_steps=config.train.max_num_steps)
    schedule = Schedule(
        total_steps=steps,
        warmup_steps=warmup_steps(config.train.optm_warmup_steps, total_steps=steps),
        decay_type=config.train.optm_decay_type,
        decay_ratio=config.train.optm_decay_ratio,
        min_lr_factor=config.train.optm_min_lr_factor,
    )
    return RunPlan(order=order, mini_batch=policy.mini_batch, steps_per_epoch=per_epoch, schedule=schedule)


def order_settings(config: Config, *, num_ranks: int = 1, known_rows: int | None = None) -> OrderSettings:
    """The order that the TOML asks for; each rank's rows of a step must be whole micro-batches."""
    policy = config.train.train_policy
    rows, key = config.stream.rows_per_step, "stream.rows_per_step"
    if rows is None:
        rows, key = config.train.train_batch_per_replica * num_ranks, "train.train_batch_per_replica"
        rows = known_rows or rows
    if rows % num_ranks:
        works = ", ".join(str(size) for size in range(1, rows + 1) if rows % size == 0)
        raise ConfigError(
            f"{config.where(key)}: {key}: {rows} rows a step do not divide by {num_ranks} ranks; {works} ranks would do"
        )
    if rows // num_ranks % policy.mini_batch:
        share = rows // num_ranks
        works = ", ".join(str(size) for size in range(1, share + 1) if share % size == 0)
        raise ConfigError(
            f"{config.where(key)}: {key}: {share} rows a step and rank do not divide by mini_batch = "
            f"{policy.mini_batch}; mini_batch could be {works}"
        )
    return OrderSettings(
        seed=policy.dataloader_seed,
        rows_per_step=rows,
        shuffle=policy.dataloader_shuffle,
        drop_last=policy.dataloader_drop_last,
    )
