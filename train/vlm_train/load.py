"""From a TOML to what trains: device, precision, family, module, trainable parameters, optimizer."""

from collections.abc import Mapping

import torch
from torch import nn

from vlm_catalogs.config import Config
from vlm_catalogs.console import fact, note
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.model_family import find_family
from vlm_train.loop import Precision, Trainer, seed_step
from vlm_train.lora import add_adapters
from vlm_train.models import load_family
from vlm_train.models.compiled_layers import compile_layers, is_to_compile, refuse_compile
from vlm_train.models.family import Family
from vlm_train.models.leak_probe import Movement, probe_packing, refuse_leaks
from vlm_train.models.liger import refuse_liger, use_liger
from vlm_train.models.pretrained import enable_gradient_checkpointing, read_config
from vlm_train.optimizer import EVERYTHING_ELSE, OptimizerSettings, build_optimizer
from vlm_train.ranks import ALONE, Ranks
from vlm_train.shard_parameters import WholeForward, precision_policy, shard_module
from vlm_train.trainable import TrainablePlan, TrainableRules, apply_trainable, named_parameters, plan_trainable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_device() -> torch.device:
    """CUDA where it is, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(config: Config) -> Precision:
    """The two types of the run.

    Raises ConfigError for float16, which would need a loss scale, and for a compute type wider than the weights, which
    autocast does not do.
    """
    names = ("param_dtype", "master_dtype", "fsdp_reduce_dtype")
    types = {f"train.{name}": getattr(config.train, name) for name in names}
    for key, name in types.items():
        if name not in DTYPES:
            raise ConfigError(f"{config.where(key)}: {key}: {name} is not built yet; use bfloat16 or float32")
    if (config.train.param_dtype, config.train.master_dtype) == ("float32", "bfloat16"):
        key = "train.master_dtype"
        raise ConfigError(f"{config.where(key)}: {key}: bfloat16 weights cannot train in float32; use float32 for both")
    return Precision(master=DTYPES[config.train.master_dtype], compute=DTYPES[config.train.param_dtype])


def load_family_of(config: Config) -> Family:
    """The family of the model, with its processor; no weights yet."""
    policy = config.policy
    found = find_family(policy.model_name_or_path, revision=policy.model_revision)
    if found.model_type is None:
        raise ConfigError(
            f"{policy.model_name_or_path}: no config.json found locally; name a folder that holds the model, or "
            "download it into the hub cache first"
        )
    return load_family(
        policy.model_name_or_path,
        found.model_type,
        revision=policy.model_revision,
        trust_remote_code=policy.trust_remote_code,
    )


def load_module(config: Config, family: Family) -> nn.Module:
    """The module with the weights of the base model, in the master type, with the adapters of [policy.lora]."""
    module = family.load(
        config.policy.model_name_or_path, dtype=precision(config).master, device=choose_device(), config=config
    )
    if config.policy.enable_liger_kernel and choose_device().type == "cuda":
        use_liger(module, family.model_type)
    elif config.policy.enable_liger_kernel:
        note("policy.enable_liger_kernel: the kernels need CUDA and there is none: they are left out")
    if config.policy.lora is not None:
        seed_step(config.train.seed or 0, 0)  # adapters begin at random values
        for line in add_adapters(module, config.policy.lora).lines():
            fact(line)
    return module


def refuse_leaking_rows(config: Config, family: Family) -> Movement:
    """Try on a small copy of the model that packed samples do not see each other, before any weights are read.

    Raises ConfigError when they do.
    """
    policy, types = config.policy, precision(config)
    model_config = read_config(
        policy.model_name_or_path, revision=policy.model_revision, trust_remote_code=policy.trust_remote_code
    )
    device = choose_device()
    movement = probe_packing(family, model_config, dtype=types.master, device=device, context=types.context(device))
    refuse_leaks(movement)
    return movement


def load_trainer(config: Config, family: Family, ranks: Ranks = ALONE) -> tuple[Trainer, TrainablePlan]:
    """The trainer of a run at its start, and what trains in it. All ranks must call it."""
    refuse_without_effect(config, family)
    check_offload(config, choose_device(), ranks)
    module = load_module(config, family)
    plan = plan_trainable(named_parameters(module), trainable_rules(config))
    apply_trainable(module, plan)
    settings = optimizer_settings(config)
    if config.policy.model_gradient_checkpointing:
        enable_gradient_checkpointing(module, selective=config.policy.model_gradient_checkpointing == "selective")
    module.train()
    if is_to_compile(config, choose_device()):
        fact(compile_layers(module).line())
    whole = WholeForward(module, family)
    types = precision(config)
    policy = precision_policy(compute=types.compute, master=types.master, reduce=DTYPES[config.train.fsdp_reduce_dtype])
    experts = shard_module(whole, ranks=ranks, train=config.train, precision=policy)
    trainer = Trainer(
        whole,
        build_optimizer(module.named_parameters(), settings),
        precision=types,
        grad_norm_clip=settings.grad_norm_clip,
        # Adapters leave the base as it is, and a selection bias is part of it: an adapter alone could not carry it.
        balance_experts=config.custom.enable_moe_load_balancing_training and config.policy.lora is None,
        aux_loss_coeff=config.policy.aux_loss_coeff,
        spike_mads=config.train.spike_mads,
        experts=experts,
        ranks=ranks,
        device=choose_device(),
    )
    return trainer, plan


def refuse_without_effect(config: Config, family: Family) -> None:
    """Raise ConfigError for a setting that this kind of model cannot heed; before weights are read."""
    if config.policy.aux_loss_coeff and family.model_type != "qwen3_vl_moe":
        key = "policy.aux_loss_coeff"
        raise ConfigError(
            f"{config.where(key)}: {key}: {family.model_type} has no routers with an auxiliary loss; leave it 0 "
            "(Nemotron's experts are balanced by custom.enable_moe_load_balancing_training)"
        )
    key = "custom.enable_moe_load_balancing_training"
    if config.policy.lora is not None and config.custom.enable_moe_load_balancing_training and key in config.lines:
        raise ConfigError(
            f"{config.where(key)}: {key}: has no effect beside [policy.lora]: the base model stays as it is, its "
            "routers' selection biases too; leave it out"
        )
    if config.policy.enable_liger_kernel:
        key = "policy.enable_liger_kernel"
        refuse_liger(family.model_type, where=f"{config.where(key)}: {key}")
    if is_to_compile(config, choose_device()):
        refuse_compile(config, choose_device())


def check_offload(config: Config, device: torch.device, ranks: Ranks) -> None:
    """Say where ``fsdp_offload`` changes nothing. Raises ConfigError where memory that it asks for would not be won."""
    key = "train.fsdp_offload"
    if not config.train.fsdp_offload:
        return
    if device.type == "cpu":
        note(f"{key}: there is no GPU here: everything is in the memory of the CPU already")
    elif ranks.is_alone:
        raise ConfigError(
            f"{config.where(key)}: {key}: parameters are moved out by the ranks that share them, and this run has one: "
            "start several, or leave it false"
        )


def trainable_rules(config: Config) -> TrainableRules:
    """What the TOML says about which parameters train."""
    return TrainableRules(
        train_layers=config.custom.train_layers,
        trainable_pattern=config.policy.trainable_pattern,
        freeze_pattern=config.policy.freeze_pattern,
        trainable_map=config.policy.trainable_map or {},
    )


def learning_rates(config: Config) -> dict[str, float]:
    """``[train] optm_lr`` as pattern -> learning rate; a plain number is for everything."""
    lr = config.train.optm_lr
    return dict(lr) if isinstance(lr, Mapping) else {EVERYTHING_ELSE: lr}


def optimizer_settings(config: Config) -> OptimizerSettings:
    """What the TOML says about the optimizer."""
    train = config.train
    return OptimizerSettings(
        lr=learning_rates(config),
        impl=train.optm_impl,
        weight_decay=train.optm_weight_decay,
        betas=train.optm_betas,
        epsilon=train.epsilon,
        grad_norm_clip=train.optm_grad_norm_clip,
    )
