"""Adapters on every family: both exports equal the adapted model in plain transformers, and the base stays as it is."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.train.models.rank_steps import Found, Way, take_ways, tensor_hashes, write_plan
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_catalogs.config.sections import LoraSection
from vlm_catalogs.errors import ConfigError
from vlm_train.local_ranks import run_locally
from vlm_train.lora import add_adapters, export_adapter, merged_state_dict
from vlm_train.models.pretrained import export_model
from vlm_train.ranks import ALONE

IMAGE, IMAGES, VIDEO, TEXT = range(4)
ALL_LINEAR = LoraSection(r=4, lora_alpha=8.0, target_modules="all-linear")
LORA = ("policy.lora.r=4", "policy.lora.target_modules='all-linear'")
ROOT = Path(__file__).parents[3]
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.train.models.rank_steps import main; main()"
STEP = ((((((IMAGE,), (VIDEO,)), ((TEXT,),)), (((IMAGES,),), ((TEXT,), (IMAGE,))))),)


def adapted(tiny: Any, section: LoraSection = ALL_LINEAR) -> torch.nn.Module:
    """The model with adapters that change what it says."""
    module = tiny.load().eval()
    torch.manual_seed(0)
    add_adapters(module, section)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(torch.linspace(-0.05, 0.05, parameter.numel()).view_as(parameter))
    return module  # type: ignore[no-any-return]


def test_both_exports_equal_the_adapted_model_in_plain_transformers(
    tiny: Any, tmp_path: Path, reference_loops: ModuleType
) -> None:
    module = adapted(tiny)
    weights = dict(module.state_dict())
    export_model(module, str(tiny.folder), tmp_path / "merged", state_dict=merged_state_dict(module, weights))
    export_adapter(module, weights, base=str(tiny.folder), folder=tmp_path / "adapter")
    merged, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(info.values())
    plain = AutoModelForImageTextToText.from_pretrained(tiny.folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tiny.folder)
    samples = [reference_loops.model_inputs(processor, one) for one in tiny.plain(IMAGE, VIDEO, TEXT)]
    with torch.no_grad():
        untrained = [reference_loops.logits_of(plain.eval(), one) for one in samples]
        with_adapter = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
        for place, one in enumerate(samples):
            number = (IMAGE, VIDEO, TEXT)[place]
            ours = tiny.family.logits(module, tiny.batch(number))
            reloaded = reference_loops.logits_of(with_adapter, one)
            assert (ours - untrained[place]).abs().max() > 1e-2
            assert (reloaded - ours).abs().max() <= 1e-5
            assert (reference_loops.logits_of(merged.eval(), one) - reloaded).abs().max() <= 1e-5


def test_layers_whose_calls_are_bypassed_are_refused_by_name(tiny: Any) -> None:
    module = tiny.load()
    linear = [name for name, one in module.named_modules() if isinstance(one, torch.nn.Linear)]
    bypassed = [name for name in linear if name.endswith("mixer.out_proj")]
    assert bool(bypassed) == (tiny.family.model_type == "nemotron_h_omni")
    targets = add_adapters(tiny.load(), ALL_LINEAR)
    assert targets.bypassed == tuple(sorted(bypassed))
    assert not any(name.rpartition(".")[2] == "lm_head" for name in targets.names)
    for name in bypassed:
        for section in (LoraSection(target_modules=(name,)), LoraSection(target_modules=r".*out_proj")):
            with pytest.raises(ConfigError, match=r"target_modules: .*mixer\.out_proj: the fused Mamba kernel"):
                add_adapters(tiny.load(), section)
        with pytest.raises(ConfigError, match=r"modules_to_save: .*mixer\.out_proj: the fused Mamba kernel"):
            add_adapters(tiny.load(), LoraSection(target_modules="all-linear", modules_to_save=("out_proj",)))


def test_targets_that_do_not_exist_are_named_with_the_nearest(tiny: Any) -> None:
    with pytest.raises(ConfigError, match=r"'q_prj' matches no linear layer; nearest: .*q_proj"):
        add_adapters(tiny.load(), LoraSection(target_modules=("q_prj",)))
    with pytest.raises(ConfigError, match="target_modules: missing"):
        add_adapters(tiny.load(), LoraSection())


def check_frozen(tiny: Any, found: Found, *, trains: str) -> None:
    """A step has changed every parameter whose name holds ``trains``, and no other tensor."""
    base = tiny.load()
    before, fixed = tensor_hashes(base), {name for name, _ in base.named_buffers()}
    changed = {
        plain
        for name, content in found.hashes.items()
        if before.get(plain := name.replace(".base_layer.", ".").removeprefix("module.")) != content
    }
    assert changed == {name for name in found.hashes if trains in name and name not in fixed}
    assert changed


def frozen_ways(tiny: Any) -> dict[str, Way]:
    """What trains -> the way; a rate so high that whatever trains moves."""
    moving = ("train.optm_lr=0.01", "train.optm_weight_decay=0.1")
    tower = next(name for name in ("visual", "vision_model") if any(name in one for one in names(tiny)))
    parts = [tower, *(["deepstack"] if any("deepstack" in one for one in names(tiny)) else [])]
    return {
        ".lora_": Way("adapters", STEP, (*moving, *LORA), watched=True),
        **{one: Way(one, STEP, (*moving, f"policy.trainable_pattern=['{one}']"), watched=True) for one in parts},
    }


def names(tiny: Any) -> list[str]:
    return [name for name, _ in tiny.load().named_parameters()]


def test_a_step_changes_what_trains_and_no_other_tensor(tiny: Any, tmp_path: Path) -> None:
    if tiny.family.model_type != "nemotron_h_omni":
        pytest.skip("the other families take the step in the slow test")
    ways = frozen_ways(tiny)
    alone = [Way(way.name, (((*STEP[0][0], *STEP[0][1]),),), way.settings, watched=True) for way in ways.values()]
    write_plan(tmp_path, tiny.folder, [tiny.encode(number) for number in range(4)], alone)
    found = take_ways(tmp_path, ALONE)
    for trains, way in ways.items():
        check_frozen(tiny, found[way.name][0], trains=trains)


@pytest.mark.slow
def test_a_step_over_two_ranks_changes_what_trains_and_no_other_tensor(tiny: Any, tmp_path: Path) -> None:
    ways = frozen_ways(tiny)
    write_plan(tmp_path, tiny.folder, [tiny.encode(number) for number in range(4)], list(ways.values()))
    assert run_locally([sys.executable, "-c", PROGRAM, str(tmp_path)], num_processes=2) == 0
    found = torch.load(tmp_path / "found.pt", weights_only=False)
    for trains, way in ways.items():
        check_frozen(tiny, found[way.name][0], trains=trains)
