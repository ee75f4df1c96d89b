"""The numbers of a run, decided before anything is loaded: rows, steps, schedule, order. Pure, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_train.draws import DatasetToDraw, OrderSettings
from vlm_train.epoch import count_steps, has_equal_epochs, least_steps
from vlm_train.schedule import Schedule, total_steps, warmup_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """How long a run is and what its steps are made of."""

    order: OrderSettings
    mini_batch: int
    steps_per_epoch: int | None
    """Steps of every epoch; None where each epoch's own plan says it."""
    first_epoch_steps: int | None
    """Steps of epoch 0; None where nothing needs them."""
    epochs: int
    ends_by_steps: bool
    """True when max_num_steps ends training, False when the epochs do."""
    schedule: Schedule
    saves_by_epoch: bool = False
    """Are checkpoints written where epochs end?"""

    @property
    def total_steps(self) -> int:
        """Where training ends; about, where the epochs end it and have steps of their own."""
        return self.schedule.total_steps

    @property
    def is_exact(self) -> bool:
        """Is ``total_steps`` exact?"""
        return self.ends_by_steps or self.steps_per_epoch is not None

    @property
    def needs_totals(self) -> bool:
        """Must an epoch be planned to its end before its first step?"""
        return not self.is_exact or (self.saves_by_epoch and self.steps_per_epoch is None)

    def factor(self, step: int, *, epoch: int, epoch_step: int, steps_of_epoch: int | None) -> float:
        """The factor on the learning rate of ``step`` (semantics C4)."""
        if self.is_exact or not steps_of_epoch:
            return self.schedule.factor(step)
        return self.schedule.factor(step, progress=(epoch + epoch_step / steps_of_epoch) / self.epochs)

    def describe(self) -> str:
        """One line for people."""
        steps = "as many steps an epoch as its plan gives"
        if self.first_epoch_steps is not None:
            steps = f"{self.first_epoch_steps} steps " + ("an epoch" if self.steps_per_epoch else "in the first epoch")
        rows = f"{self.order.rows_per_step} rows a step in micro-batches of {self.mini_batch}"
        about = "" if self.is_exact else "about "
        return f"{rows}, {steps}, {about}{self.schedule.describe()}"


def plan_run(
    config: Config, datasets: Sequence[DatasetToDraw], *, num_ranks: int = 1, known_rows: int | None = None
) -> RunPlan:
    """The plan of a run that draws from ``datasets``; ``known_rows`` a step were settled by its first start.

    Raises ConfigError, listing values that work, when rows, ranks and micro-batches do not fit (semantics C1).
    """
    policy = config.train.train_policy
    order = order_settings(config, num_ranks=num_ranks, known_rows=known_rows)
    epochs, limit = config.train.epoch, config.train.max_num_steps
    is_equal = has_equal_epochs(datasets, order=order)
    first = _first_epoch_steps(datasets, order=order, enough=limit, epochs=epochs, is_equal=is_equal)
    if first == 0:
        raise ConfigError(
            f"an epoch of {sum(dataset.num_draws for dataset in datasets)} samples is shorter than one step of "
            f"{order.rows_per_step} rows, and dataloader_drop_last drops it; lower train.train_batch_per_replica"
        )
    steps = limit if first is None else total_steps(steps_per_epoch=first, epochs=epochs, max_num_steps=limit)
    assert steps is not None  # without a limit the first epoch is counted
    schedule = Schedule(
        total_steps=steps,
        warmup_steps=warmup_steps(config.train.optm_warmup_steps, total_steps=steps),
        decay_type=config.train.optm_decay_type,
        decay_ratio=config.train.optm_decay_ratio,
        min_lr_factor=config.train.optm_min_lr_factor,
    )
    return RunPlan(
        order=order,
        mini_batch=policy.mini_batch,
        steps_per_epoch=first if is_equal else None,
        first_epoch_steps=first,
        epochs=epochs,
        ends_by_steps=steps == limit,
        schedule=schedule,
        saves_by_epoch=config.train.ckpt.enable_checkpoint and config.train.ckpt.save_freq_in_epoch > 0,
    )


def _first_epoch_steps(
    datasets: Sequence[DatasetToDraw], *, order: OrderSettings, enough: int | None, epochs: int, is_equal: bool
) -> int | None:
    """Steps of epoch 0; None where there are ``enough`` for sure, so that nobody need wait for the count."""
    least = least_steps(datasets, order=order)
    if is_equal:
        return least
    if enough is not None and epochs * least >= enough:
        return None
    return count_steps(datasets, epoch=0, order=order)


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
        pack_tokens=config.policy.model_max_length if config.train.sequence_packing else None,
    )
