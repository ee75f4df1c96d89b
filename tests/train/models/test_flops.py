"""The operations of a step against those that torch counts in a real forward and backward pass."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm_train.flops import step_flops
from vlm_train.shard_parameters import WholeForward

IMAGE, IMAGES, VIDEO, TEXT, BOTH = range(5)
PRODUCTS = ("aten.mm", "aten.addmm")


def counted(tiny: Any, module: torch.nn.Module, batch: Any) -> int:
    """What torch counts of products with weights; it knows none of those of grouped experts, nor attention on CPUs."""
    with FlopCounterMode(display=False) as counter:
        WholeForward(module, tiny.family)(batch).sum().backward()
    found = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    # A causal convolution makes 3 places more than there are tokens; what is counted backward of it is far too much.
    of_convolutions = 3 * found.get("aten.convolution", 0) * batch.num_tokens // (batch.num_tokens + 3)
    head: Any = tiny.family.output_layer(module)
    recomputed = 2 * head.weight.numel() * batch.num_supervised_tokens  # the logits of a chunk
    return sum(found.get(name, 0) for name in PRODUCTS) + of_convolutions - recomputed


def of_experts(module: torch.nn.Module, batch: Any) -> int:
    """6 x the weights of the two experts of four that a token goes to."""
    experts = sum(value.numel() for name, value in module.named_parameters() if ".experts." in name)
    return 6 * experts * 2 // 4 * batch.num_tokens


@pytest.mark.parametrize("index", [IMAGE, IMAGES, VIDEO, TEXT])
def test_products_with_weights_are_those_that_torch_counts(tiny: Any, index: int) -> None:
    module, batch = tiny.load().train(), tiny.batch(index)
    cost = replace(step_flops(module, tiny.family), pair=0, patch_pair=0)
    expected = cost.of([batch]) - of_experts(module, batch)
    if tiny.family.model_type == "nemotron_h_omni":  # two register tokens a frame go through the tower's layers too
        expected += 2 * sum(one.grid[0] for one in batch.media) * (cost.patch - 4 * 768 * 32)
    if index == TEXT and tiny.family.model_type != "nemotron_h_omni":  # the tower is called all the same, on one token
        medium = tiny.family.probe_medium(module.config)
        expected += cost.patch * medium.grid[1] * medium.grid[2] + cost.media_token
    assert counted(tiny, module, batch) == expected


def test_a_patch_of_an_omni_video_is_of_two_frames(tiny: Any) -> None:
    cost = step_flops(tiny.load(), tiny.family)
    of_second_frame = 4 * 768 * 32 if tiny.family.model_type == "nemotron_h_omni" else 0
    assert cost.video_patch - cost.patch == of_second_frame


def test_a_frozen_tower_has_no_backward_and_frozen_text_no_gradient_of_its_own(tiny: Any) -> None:
    module = tiny.load().train()
    whole = step_flops(module, tiny.family)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith(("model.language_model", "language_model", "lm_head")))
    text_only = step_flops(module, tiny.family)
    assert (text_only.token, text_only.pair) == (whole.token, whole.pair)
    assert 3 * text_only.media_token == whole.media_token
    assert 3 * text_only.patch_pair == whole.patch_pair
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lm_head" in name)
    head_only = step_flops(module, tiny.family)
    assert head_only.supervised_token == whole.supervised_token
    assert 3 * head_only.token == 2 * whole.token


def test_packed_samples_attend_to_themselves_and_rows_that_fill_a_step_cost_nothing(tiny: Any) -> None:
    cost = step_flops(tiny.load(), tiny.family)
    assert cost.of([tiny.rows((TEXT, IMAGE))]) == cost.of([tiny.batch(TEXT), tiny.batch(IMAGE)])
    assert cost.of([tiny.batch(TEXT, IMAGE)]) == cost.of([tiny.batch(IMAGE, TEXT)])
    filled = tiny.batch(TEXT)
    assert (
        cost.of([replace(filled, sample_ids=("",), places_N=filled.places_N[:0], targets_N=filled.targets_N[:0])]) == 0
    )
    layers = {"qwen3_vl": 3, "qwen3_vl_moe": 3, "nemotron_h_omni": 1, "cosmos3_edge": 3}[tiny.family.model_type]
    assert cost.pair == 12 * layers * 64, "4 heads of 16"
    assert cost.patch_pair == 12 * 2 * 32, "2 layers of the tower"
