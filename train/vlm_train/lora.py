"""Low-rank adapters, by peft: put into the model before training, saved apart, or merged into its weights."""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlm_catalogs.config.sections import LoraSection
from vlm_catalogs.errors import ConfigError, StorageError
from vlm_catalogs.hashing import content_hash, file_hash
from vlm_train.trainable import nearest_names

ADAPTER = "default"
ALL_LINEAR = "all-linear"
OUTPUT_LAYER = "lm_head"
"""What every family calls the layer from hidden states to logits."""
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTargets:
    """The modules that get an adapter, and those that ``all-linear`` leaves out."""

    names: tuple[str, ...]
    bypassed: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        left = (
            f"; {len(self.bypassed)} linear layers stay without one: their calls are bypassed" if self.bypassed else ""
        )
        return [f"low-rank adapters: {len(self.names)} linear layers{left}"]


def adapter_targets(module: nn.Module, section: LoraSection) -> AdapterTargets:
    """The linear layers that ``[policy.lora] target_modules`` names.

    A list names the ends of module names, a string is a regular expression over whole names, ``all-linear`` takes every
    linear layer that is called as a module, the output layer apart. Raises ConfigError for a name that
    matches none, with the nearest, and for
    a layer whose weight is used without calling it: its adapter would train on nothing.
    """
    linear = {name: one for name, one in module.named_modules() if isinstance(one, nn.Linear)}
    bypassed = {name: why for name in linear if (why := _bypassed(module, name)) is not None}
    if section.target_modules == ALL_LINEAR:
        trainable = [name for name in linear if linear[name].weight.requires_grad and name not in bypassed]
        names = [name for name in trainable if name.rpartition(".")[2] != OUTPUT_LAYER]  # as peft understands it
        return AdapterTargets(names=tuple(sorted(names)), bypassed=tuple(sorted(bypassed)))
    wanted = [section.target_modules] if isinstance(section.target_modules, str) else list(section.target_modules)
    if not any(wanted):
        raise ConfigError('policy.lora.target_modules: missing; name linear layers, or take "all-linear"')
    whole = isinstance(section.target_modules, str)
    names = sorted({name for text in wanted for name in _matching(list(linear), text, whole=whole)})
    for name in names:
        if name in bypassed:
            raise ConfigError(f"policy.lora.target_modules: {name}: {bypassed[name]}; leave it out")
    return AdapterTargets(names=tuple(names), bypassed=())


def add_adapters(module: nn.Module, section: LoraSection) -> AdapterTargets:
    """Freeze ``module`` and put a trainable adapter beside each target, in place. Raises ConfigError."""
    from peft import inject_adapter_in_model

    targets = adapter_targets(module, section)
    known = [name for name, _ in module.named_modules()]
    for text in section.modules_to_save:
        for name in _matching(known, text, whole=False, key="modules_to_save"):
            if _bypassed(module, name) is not None:
                raise ConfigError(f"policy.lora.modules_to_save: {name}: {_bypassed(module, name)}; leave it out")
    inject_adapter_in_model(_peft_config(section, targets), module, adapter_name=ADAPTER)
    return targets


def merged_state_dict(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights``, the whole state of ``module``, under their names in the base model, adapters added in."""
    from peft.tuners.lora import LoraLayer

    layers = {name: one for name, one in module.named_modules() if isinstance(one, LoraLayer)}
    merged = {}
    for name, value in weights.items():
        plain = _plain_name(name)
        if plain is not None:
            owner = name.removesuffix(".base_layer.weight")
            merged[plain] = _with_adapter(layers[owner], value, weights, owner) if owner != name else value
    return merged


def export_adapter(module: nn.Module, weights: Mapping[str, Tensor], *, base: str, folder: Path) -> Path:
    """Write the adapters in ``weights`` alone, as ``peft.PeftModel.from_pretrained(base, folder)`` reads them.

    Appears whole, by rename.

    Raises ConfigError when ``folder`` exists, StorageError when it cannot be written.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    if folder.exists():
        raise ConfigError(f"{folder}: exists already; an export never overwrites")
    held: Any = module
    tensors = get_peft_model_state_dict(held, state_dict=dict(weights), adapter_name=ADAPTER)
    config = held.peft_config[ADAPTER]
    config.base_model_name_or_path = base
    config.inference_mode = True
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            named = {f"base_model.model.{name}": value.contiguous().cpu() for name, value in tensors.items()}
            save_file(named, staging / "adapter_model.safetensors", metadata={"format": "pt"})
            config.save_pretrained(str(staging))
            staging.chmod(0o755)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error}") from error
    finally:
        config.inference_mode = False
    return folder


def base_weights_hash(model: str, *, revision: str | None = None) -> str:
    """What a LoRA checkpoint remembers of its base: xxh3_128 over the names and contents of its weight files."""
    folder = Path(model)
    if not folder.is_dir():
        from transformers.utils.hub import cached_file

        folder = Path(str(cached_file(model, "config.json", revision=revision))).parent
    files = sorted({path for pattern in WEIGHT_FILES for path in folder.glob(pattern)})
    return content_hash("\n".join(f"{path.name} {file_hash(path)}" for path in files).encode())


def _peft_config(section: LoraSection, targets: AdapterTargets) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=section.r,
        lora_alpha=section.lora_alpha,  # type: ignore[arg-type]  # scaling takes any number
        lora_dropout=section.lora_dropout,
        target_modules=list(targets.names),
        modules_to_save=list(section.modules_to_save) or None,
        use_rslora=section.use_rslora,
    )


def _bypassed(module: nn.Module, name: str) -> str | None:
    """Why calls of a layer never reach it, or None."""
    above, _, own = name.rpartition(".")
    if own == "out_proj" and "Mamba" in type(module.get_submodule(above)).__name__:
        return "the fused Mamba kernel reads its weight and never calls it, so an adapter would train on nothing"
    return None


def _matching(names: Sequence[str], text: str, *, whole: bool, key: str = "target_modules") -> list[str]:
    try:
        matched = [name for name in names if re.fullmatch(text, name)] if whole else _ending(names, text)
    except re.error as error:
        raise ConfigError(f"policy.lora.{key}: {text!r} is not a regular expression: {error}") from error
    if not matched:
        kind = "linear layer" if key == "target_modules" else "module"
        raise ConfigError(f"policy.lora.{key}: {text!r} matches no {kind}; nearest: {nearest_names(text, names)}")
    return matched


def _ending(names: Sequence[str], text: str) -> list[str]:
    return [name for name in names if name == text or name.endswith(f".{text}")]


def _plain_name(name: str) -> str | None:
    """The name in the base model; None for what only adapters have, or what a trained copy replaces."""
    if ".lora_" in name or ".original_module." in name:
        return None
    return name.replace(".base_layer.", ".").replace(f".modules_to_save.{ADAPTER}.", ".")


@torch.no_grad()
def _with_adapter(layer: Any, weight: Tensor, weights: Mapping[str, Tensor], owner: str) -> Tensor:
    """The sum in fp32, then in the type of the weight."""
    down, up = (weights[f"{owner}.{one}.{ADAPTER}.weight"].float() for one in ("lora_A", "lora_B"))
    merged: Tensor = weight.float() + layer.scaling[ADAPTER] * (up @ down)
    return merged.to(weight.dtype)
