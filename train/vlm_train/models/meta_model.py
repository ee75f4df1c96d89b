"""The model of a TOML without its weights: names, shapes and what trains, from config.json alone."""

from typing import Any

import torch
from torch import nn

from vlm_catalogs.config import Config
from vlm_catalogs.errors import ConfigError
from vlm_train.load import trainable_rules
from vlm_train.lora import add_adapters
from vlm_train.models.nemotron_omni import freeze_unused
from vlm_train.models.pretrained import read_config
from vlm_train.trainable import TrainablePlan, apply_trainable, named_parameters, plan_trainable


def meta_module(config: Config) -> tuple[nn.Module, TrainablePlan]:
    """The module on the meta device, frozen and with adapters as a run would have it, and why.

    Raises ConfigError for rules that match nothing.
    """
    from transformers import AutoModelForImageTextToText

    policy = config.policy
    model_config = read_config(
        policy.model_name_or_path, revision=policy.model_revision, trust_remote_code=policy.trust_remote_code
    )
    with torch.device("meta"):
        build: Any = AutoModelForImageTextToText.from_config
        try:
            module: nn.Module = build(model_config, trust_remote_code=policy.trust_remote_code)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{policy.model_name_or_path}: config.json describes no model that can be built: {error}"
            ) from error
        freeze_unused(module)
        if policy.lora is not None:
            add_adapters(module, policy.lora)
    plan = plan_trainable(named_parameters(module), trainable_rules(config))
    apply_trainable(module, plan)
    return module, plan
