import pytest
import torch
from torch import nn

from vlm_catalogs.errors import ConfigError
from vlm_train.optimizer import OptimizerSettings, build_optimizer, set_lr


def model() -> nn.Module:
    return nn.ModuleDict({"visual": nn.Linear(2, 2), "text": nn.Linear(2, 2)})


def settings(**rates: float) -> OptimizerSettings:
    return OptimizerSettings(
        lr=rates, impl="for-loop", weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-6, grad_norm_clip=1.0
    )


def test_each_pattern_has_its_rate_and_default_takes_the_rest() -> None:
    module = model()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = build_optimizer(module.named_parameters(), settings(visual=0.1, bias=0.2, default=0.4))
    assert set_lr(optimizer, 0.5) == 0.2
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {name: (before[name] - value.detach()).max().item() for name, value in module.named_parameters()}
    # Adam's first step is the learning rate times the sign of the gradient.
    expected = {"visual.weight": 0.05, "visual.bias": 0.05, "text.weight": 0.2, "text.bias": 0.1}
    assert moved == pytest.approx(expected, rel=1e-4)


def test_a_frozen_parameter_is_in_no_group() -> None:
    module = model()
    module["visual"].requires_grad_(False)
    optimizer = build_optimizer(module.named_parameters(), settings(default=0.1))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_a_rate_for_nothing_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'visul' is the rate of no trainable parameter; nearest: visual\."):
        build_optimizer(model().named_parameters(), settings(visul=0.1, default=0.1))


def test_a_parameter_without_a_rate_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no pattern matches text\.weight; .* default = "):
        build_optimizer(model().named_parameters(), settings(visual=0.1))
