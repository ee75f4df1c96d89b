"""What Nemotron Omni needs beyond the other families."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, ParakeetEncoderConfig
from transformers.models.radio.modeling_radio import RadioAttention, RadioLayer

from vlm_catalogs.config import Config
from vlm_train.check import describe_trainable
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


@only_omni
def test_a_sound_tower_is_frozen_because_nothing_trains_it(tiny: Any, config: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "with_sound")
    model_config = AutoConfig.from_pretrained(folder)
    model_config.audio_config = ParakeetEncoderConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_mel_bins=16,
        subsampling_conv_channels=8, projection_hidden_size=32, projection_bias=False,
    )  # fmt: skip
    AutoModelForImageTextToText.from_config(model_config).save_pretrained(folder)
    module = tiny.family.load(str(folder), dtype=torch.float32, device="cpu", config=config).train()
    tiny.family.logits(module, tiny.batch()).sum().backward()
    without_gradient = {name.split(".")[0] for name, parameter in module.named_parameters() if parameter.grad is None}
    frozen = {name.split(".")[0] for name, parameter in module.named_parameters() if not parameter.requires_grad}
    assert without_gradient == frozen == {"audio_tower", "embed_audio"}
    rules = {"freeze_pattern": (), "trainable_pattern": (), "trainable_map": None, "lora": None}
    policy = SimpleNamespace(**vars(config.policy), model_name_or_path=str(folder), **rules)
    (said,) = describe_trainable(cast(Config, SimpleNamespace(policy=policy, custom=SimpleNamespace(train_layers=()))))
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    assert said == f"{trained:,} of {trained:,} parameters train (100.0 %)"
