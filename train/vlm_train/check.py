"""``vlm-train check``: what a TOML means, what trains, in what state the mix is, and everything that is missing."""

from collections.abc import Callable
from pathlib import Path

from vlm_catalogs.config import Config, describe_mode
from vlm_catalogs.console import WRONG_INPUT, result
from vlm_catalogs.errors import UserError
from vlm_catalogs.model_family import find_family
from vlm_train.run_plan import order_settings, plan_run

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_config(config: Config, *, takes_steps: bool = False, num_ranks: int | None = None, num_nodes: int = 1) -> int:
    """Print everything; 0 when a run could start, 2 when something is missing.

    ``takes_steps``, where nothing is missing: the heaviest steps too, with their peak of memory; those of a run of
    ``num_ranks`` (None: as many as a run here would have) on ``num_nodes`` machines.
    """
    order_settings(config)
    result(f"mode: {describe_mode(config)}")
    result(f"\nsettings:\n{_indented(config.resolved_toml())}")
    for text in [*config.notes, *resolved_defaults(config)]:
        result(f"note: {text}")
    missing = [*_check_model(config), *_check_mix(config)]
    for text in missing:
        result(f"missing: {text}")
    if not missing:
        result("nothing is missing: vlm-train run can start")
    if takes_steps and not missing:
        from vlm_train.try_steps import try_steps

        try_steps(config, num_ranks=num_ranks, num_nodes=num_nodes)
    return WRONG_INPUT if missing else 0


def resolved_defaults(config: Config) -> list[str]:
    """What settings became that depend on the machine or are done in another way than they say."""
    train = config.train
    notes = [f"train.param_dtype = {train.param_dtype}: matrix products use it; weights are {train.master_dtype}"]
    if train.param_dtype == train.master_dtype:
        notes = [f"weights and matrix products are {train.master_dtype}"]
    if train.compile and "train.compile" not in config.lines:
        notes.append("train.compile: on CUDA alone, because the TOML does not say it")
    if not train.ckpt.enable_checkpoint:
        notes.append("train.ckpt.enable_checkpoint = false: a run that is interrupted starts again at step 0")
    return notes


def _check_model(config: Config) -> list[str]:
    """Print what trains; return what is missing of the model."""
    model = config.policy.model_name_or_path
    if find_family(model, revision=config.policy.model_revision).model_type is None:
        return [f"config.json and weights of {model} (not found locally)"]
    missing = _said(lambda: result("\ntrains:\n" + "\n".join(f"  {line}" for line in describe_trainable(config))))
    if not has_weights(config):
        missing.append(f"weights of {config.policy.weights_name_or_path} (not found locally)")
    return [*missing, *_damaged_weights(config)]


def _damaged_weights(config: Config) -> list[str]:
    """The files of a local model folder that are cut short or hold no tensors; only their headers are read."""
    from safetensors import SafetensorError, safe_open

    model, damaged = Path(config.policy.weights_name_or_path), []
    for path in sorted(model.glob("*.safetensors")) if model.is_dir() else []:
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as error:
            damaged.append(f"weights of {path}: damaged: {error}; fetch the checkpoint again")
    return damaged


def describe_trainable(config: Config) -> list[str]:
    """What would train, decided on a model without weights made from config.json alone.

    Raises ConfigError for rules that match nothing.
    """
    from vlm_train.models.meta_model import meta_module

    return meta_module(config)[1].lines()


def has_weights(config: Config) -> bool:
    """Are there files with weights, in the model's folder or in the hub cache? Nothing is downloaded."""
    model = Path(config.policy.weights_name_or_path)
    if model.is_dir():
        return any(path for pattern in WEIGHTS for path in model.glob(pattern))
    from huggingface_hub import try_to_load_from_cache

    revision = config.policy.model_revision
    names = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(str(model), name, revision=revision), str) for name in names)


def _check_mix(config: Config) -> list[str]:
    """Print the state of the mix and the plan of the run; return what is missing."""
    return _said(lambda: result("\n" + "\n".join(describe_mix(config))))


def describe_mix(config: Config) -> list[str]:
    """The mix and the plan of a run on it. Raises UserError when there is none or it does not fit the TOML."""
    from vlm_train.open_mix import datasets_to_draw, load_renderers, open_mix
    from vlm_train.validation import describe_held_out

    mix = open_mix(config)
    load_renderers(config, mix)
    datasets = datasets_to_draw(mix)
    plan = plan_run(config, datasets)
    shares = [
        f"  {one.name}: {one.num_draws:,} draws an epoch ({one.share:.2%}) of {one.num_selected:,} samples"
        for one in mix.manifest.datasets
    ]
    held_out = describe_held_out(config, mix)
    return [f"mix: {mix.place}", *shares, f"plan: {plan.describe()}", *([held_out] if held_out else [])]


def _said(print_it: Callable[[], None]) -> list[str]:
    """What ``print_it`` found missing: the message of the error that it stopped with."""
    try:
        print_it()
    except UserError as error:
        return [str(error)]
    return []


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
