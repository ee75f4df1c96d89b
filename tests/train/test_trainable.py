import pytest
import torch
from torch import Tensor, nn

from vlm_catalogs.errors import ConfigError
from vlm_train.trainable import TrainableRules, apply_trainable, named_parameters, nearest_names, plan_trainable


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Linear(2, 2)


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(2, 2, bias=False)
        self.norm = nn.LayerNorm(2)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Tower()
        self.mixer = Mixer()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight = self.mixer.in_proj.weight

    def forward(self, values: Tensor) -> Tensor:
        hidden: Tensor = self.mixer.norm(self.mixer.in_proj(self.visual.patch_embed(values)))
        return hidden


def trainable(**rules: object) -> set[str]:
    plan = plan_trainable(named_parameters(Model()), TrainableRules(**rules))  # type: ignore[arg-type]
    return set(plan.trainable)


ALL = {
    "visual.patch_embed.weight",
    "visual.patch_embed.bias",
    "mixer.in_proj.weight",
    "mixer.norm.weight",
    "mixer.norm.bias",
}


def test_everything_trains_without_rules_and_a_shared_weight_stands_once() -> None:
    assert trainable() == ALL


def test_freeze_pattern_freezes_what_it_matches_anywhere_in_the_name() -> None:
    assert trainable(freeze_pattern=("patch_embed",)) == {name for name in ALL if "visual" not in name}


def test_train_layers_leaves_only_modules_of_the_class_trainable() -> None:
    assert trainable(train_layers=("Mixer",)) == {name for name in ALL if name.startswith("mixer")}
    assert trainable(train_layers=("LayerNorm",)) == {"mixer.norm.weight", "mixer.norm.bias"}


def test_later_rules_win_in_the_written_order() -> None:
    rules = {"trainable_pattern": (r"^mixer",), "freeze_pattern": (r"norm",), "trainable_map": {r"norm\.bias$": True}}
    assert trainable(**rules) == {"mixer.in_proj.weight", "mixer.norm.bias"}


def test_a_pattern_that_matches_nothing_names_the_nearest_parameters() -> None:
    with pytest.raises(ConfigError, match=r"'visual\.patch_embd' matches no parameter; nearest: visual\.patch_embed"):
        trainable(freeze_pattern=("visual.patch_embd",))
    with pytest.raises(ConfigError, match="no module of class 'Mixr' holds a parameter; nearest: Mixer"):
        trainable(train_layers=("Mixr",))
    with pytest.raises(ConfigError, match="is not a regular expression"):
        trainable(freeze_pattern=("(",))


def test_a_run_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ConfigError, match="no parameter is left to train"):
        trainable(freeze_pattern=(".",))


def test_the_table_counts_tensors_and_values_of_each_rule() -> None:
    plan = plan_trainable(named_parameters(Model()), TrainableRules(freeze_pattern=("visual",)))
    assert plan.lines() == [
        "8 of 14 parameters train (57.1 %)",
        "  freeze_pattern 'visual' freezes: 2 tensors, 6 values",
    ]


def test_frozen_parameters_stay_as_they_are_and_the_others_move() -> None:
    module = Model()
    apply_trainable(module, plan_trainable(named_parameters(module), TrainableRules(freeze_pattern=("visual",))))
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = torch.optim.AdamW([one for one in module.parameters() if one.requires_grad], lr=0.1, weight_decay=0.1)
    (module(torch.randn(3, 2)) * torch.randn(3, 2)).sum().backward()
    optimizer.step()
    changed = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in ALL if name.startswith("mixer")}


def test_the_nearest_names_are_of_three_kinds_not_of_three_layers() -> None:
    names = [f"text.layers.{number}.norm.weight" for number in range(9)] + [
        "visual.blocks.0.norm.weight",
        "head.weight",
    ]
    assert nearest_names("vision_norm", names).count("layers") == 1
    assert "visual.blocks.0" in nearest_names("vision_norm", names)
