"""Exports: a checkpoint, or the weights of a run that ended, as a model folder that plain transformers loads."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_train.checkpoint import checkpoint_path, complete_checkpoints, load_tensors, read_state, step_of
from vlm_train.start import BASE_WEIGHTS, CONFIG_FILE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlm_catalogs.config import Config

EXPORTS = "safetensors"
ADAPTERS = "adapters"


def export_path(run: Path, step: int) -> Path:
    """Where the export of ``step`` stands in its run."""
    return run / EXPORTS / f"step-{step}"


def adapter_path(run: Path, step: int) -> Path:
    """Where the low-rank adapters of ``step`` stand alone."""
    return run / ADAPTERS / f"step-{step}"


def export_weights(module: "nn.Module", weights: "dict[str, Tensor]", config: "Config", folder: Path) -> Path:
    """Write ``weights`` of ``module`` and the processor of its base model to ``folder``, whole, by rename."""
    from vlm_train.lora import merged_state_dict
    from vlm_train.models.pretrained import export_model

    merged = weights if config.policy.lora is None else merged_state_dict(module, weights)
    export_model(module, config.policy.model_name_or_path, folder, state_dict=merged)
    return folder


def export_checkpoint(run: Path, *, step: int | None, folder: Path, adapter: bool = False) -> Path:
    """Write the checkpoint of ``step`` (None: the newest) of a run to ``folder``; ``adapter``: its adapters alone.

    Raises ConfigError for a step without a checkpoint, naming those there are, and for a folder that exists.
    """
    from vlm_train.lora import export_adapter

    if folder.exists():
        raise ConfigError(f"{folder}: exists already; an export never overwrites")
    checkpoint = _find_checkpoint(run, step)
    config = load_config(run / CONFIG_FILE)
    if adapter and config.policy.lora is None:
        raise ConfigError(f"{run}: was trained without [policy.lora], so it has no adapters; leave --adapter out")
    module = load_checkpoint(config, checkpoint)
    if adapter:
        return export_adapter(module, module.state_dict(), base=config.policy.weights_name_or_path, folder=folder)
    return export_weights(module, module.state_dict(), config, folder)


def load_checkpoint(config: "Config", checkpoint: Path) -> "nn.Module":
    """The module of a run of ``config`` as ``checkpoint`` has it, with its adapters.

    Raises DataError where the checkpoint is damaged, ConfigError where adapters were trained on another base model.
    """
    from vlm_train.load import load_family_of, load_module
    from vlm_train.lora import base_weights_hash
    from vlm_train.models.pretrained import hush_progress_bars

    state = read_state(checkpoint)
    if config.policy.lora is not None:
        base = base_weights_hash(config.policy.weights_name_or_path, revision=config.policy.weights_revision)
        if state.fingerprint.get(BASE_WEIGHTS) != base:
            raise ConfigError(
                f"{config.policy.weights_name_or_path}: its weights are not those that {checkpoint} was trained on; "
                "put the base model back"
            )
    hush_progress_bars()
    module = load_module(config, load_family_of(config))
    load_tensors(checkpoint, module=module, only_trainable=config.policy.lora is not None)
    return module


def _find_checkpoint(run: Path, step: int | None) -> Path:
    found = complete_checkpoints(run)
    if not found:
        raise ConfigError(f"{run}: no complete checkpoint in it; is it the output_dir of a run?")
    if step is None:
        return found[-1]
    if checkpoint_path(run, step) not in found:
        steps = ", ".join(str(step_of(path)) for path in found)
        raise ConfigError(f"{run}: no complete checkpoint of step {step}; there are: {steps}")
    return checkpoint_path(run, step)
