"""What the steps of one attempt need: loaded once, before the first step."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact
from vlm_train.checkpoint import RunState, load_tensors
from vlm_train.checkpoint_saver import CheckpointSaver, saver_of
from vlm_train.draws import DatasetToDraw
from vlm_train.gauges import Gauges, open_gauges
from vlm_train.load import load_family_of, load_trainer, refuse_leaking_rows
from vlm_train.loop import Trainer, seed_step
from vlm_train.models.family import Family
from vlm_train.open_mix import OpenMix, load_renderers
from vlm_train.ranks import Ranks
from vlm_train.run_plan import RunPlan
from vlm_train.sample_store import SampleStore
from vlm_train.start import Start
from vlm_train.step_stream import Place
from vlm_train.stream import RowEncoder
from vlm_train.uploads import Uploads
from vlm_train.validation import Validation, open_validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that the steps of one attempt need."""

    config: Config
    ranks: Ranks
    plan: RunPlan
    start: Start
    datasets: list[DatasetToDraw]
    fingerprint: dict[str, Any]
    trainer: Trainer
    family: Family
    encoder: RowEncoder
    store: SampleStore
    saver: CheckpointSaver
    uploads: Uploads
    gauges: Gauges
    validation: Validation | None

    @property
    def output_dir(self) -> Path:
        """Where the run writes."""
        return self.start.output_dir

    @property
    def dataset_names(self) -> list[str]:
        """Every dataset that a step may draw from."""
        return [dataset.name for dataset in self.datasets]

    def state(self, place: Place, *, validation_loss: float | None = None) -> RunState:
        """The state before the step at ``place``."""
        return RunState(
            step=place.step,
            epoch=place.epoch,
            epoch_step=place.epoch_step,
            fingerprint=self.fingerprint,
            validation_loss=validation_loss,
            guard=self.trainer.guard.state(),
        )


def load_run(
    config: Config,
    plan: RunPlan,
    start: Start,
    datasets: list[DatasetToDraw],
    fingerprint: dict[str, Any],
    mix: OpenMix,
    store: SampleStore,
    ranks: Ranks,
    uploads: Uploads,
) -> Run:
    """Load family, encoder, trainer and, where the start says so, a checkpoint. All ranks must call it.

    Raises ConfigError when packed samples would see each other.
    """
    family = load_family_of(config)
    if config.train.sequence_packing:
        movement = refuse_leaking_rows(config, family)
        fact(f"packing: samples in one row do not see each other (leak probe: {movement.share:.1g} of 1)")
    renderers = load_renderers(config, mix)
    encoder = RowEncoder(store, family, renderers, max_bad_samples=config.stream.max_bad_samples)
    trainer, trainable = load_trainer(config, family, ranks)
    for line in trainable.lines():
        fact(line)
    if start.checkpoint is not None:
        load_tensors(
            start.checkpoint,
            module=trainer.module,
            optimizer=trainer.optimizer,
            only_trainable=config.policy.lora is not None,
            ranks=ranks,
        )
    if start.state is not None:
        trainer.guard.load(start.state.guard)
    saver = saver_of(
        config, start.output_dir, module=trainer.module, optimizer=trainer.optimizer, ranks=ranks, uploads=uploads
    )
    validation = open_validation(
        config, mix, store=store, renderers=renderers, family=family, trainer=trainer, ranks=ranks
    )
    return Run(
        config=config,
        ranks=ranks,
        plan=plan,
        start=start,
        datasets=datasets,
        fingerprint=fingerprint,
        trainer=trainer,
        family=family,
        encoder=encoder,
        store=store,
        saver=saver,
        uploads=uploads,
        gauges=open_gauges(config, family, ranks),
        validation=validation,
    )


def set_determinism(config: Config) -> None:
    """Seed what loading draws; with ``deterministic`` only kernels that give the same bits each time."""
    seed_step(config.train.seed or 0, 0)
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, or refuses
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
