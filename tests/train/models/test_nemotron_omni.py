"""What Nemotron Omni needs beyond the other families."""

from typing import Any

import pytest
import torch
from transformers.models.radio.modeling_radio import RadioAttention, RadioLayer

from vlm_train.models.pretrained import enable_gradient_checkpointing

only_omni = pytest.mark.parametrize("tiny", ["nemotron_h_omni"], indirect=True)


@only_omni
def test_the_vision_tower_drops_nothing_at_random_in_training(tiny: Any) -> None:
    module, batch = tiny.load().train(), tiny.batch()
    for layer in module.modules():
        if isinstance(layer, RadioAttention):
            layer.attention_dropout = 0.5
    first, again = (tiny.family.logits(module, batch) for _ in range(2))
    assert torch.equal(first, again)


@only_omni
def test_gradient_checkpointing_reaches_the_vision_tower(tiny: Any) -> None:
    module: Any = tiny.load().train()
    enable_gradient_checkpointing(module)
    calls = []
    for layer in module.vision_model.modules():
        if isinstance(layer, RadioLayer):
            layer.norm1.register_forward_hook(lambda *_: calls.append("forward"))
    tiny.family.logits(module, tiny.batch(0)).sum().backward()
    num_layers = module.config.vision_config.num_hidden_layers
    assert len(calls) == 2 * num_layers  # once forward, once more for the backward pass


@only_omni
def test_the_tower_follows_the_dtype_of_its_weights(tiny: Any) -> None:
    module = tiny.load().to(torch.bfloat16)
    with torch.no_grad():
        assert tiny.family.logits(module, tiny.batch()).isfinite().all()
