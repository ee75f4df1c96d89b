"""The probe lets every family pass as it is, and finds each leak that is planted."""

import time
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from vlm_catalogs.errors import ConfigError
from vlm_train.models import nemotron_omni, packed_layers
from vlm_train.models.leak_probe import MAX_SHARE, Movement, cut_config, probe_packing, refuse_leaks
from vlm_train.models.packed_layers import keep_mamba_in_segments, mamba_mixers


def probe(tiny: Any, dtype: torch.dtype = torch.float32) -> Movement:
    config = AutoConfig.from_pretrained(tiny.folder)
    return probe_packing(tiny.family, config, dtype=dtype, device=torch.device("cpu"), context=nullcontext())


def all_ones_mask(module: Any, query: Any, key: Any, value: Any, mask: Any, *, segments: Any, **settings: Any) -> Any:
    """Causal attention over the whole row: what an all-ones mask makes of it."""
    return packed_layers.segmented_attention(module, query, key, value, None, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_passes_as_it_is_and_at_once(tiny: Any, dtype: torch.dtype) -> None:
    state = torch.random.get_rng_state()
    began = time.perf_counter()
    movement = probe(tiny, dtype)
    assert time.perf_counter() - began < 10
    refuse_leaks(movement)
    assert movement.first > 0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_attention_over_the_whole_row_is_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register = packed_layers.AttentionInterface.register
    planted = lambda name, _ours: register(name, all_ones_mask)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(packed_layers.AttentionInterface, "register", planted)
        movement = probe(tiny)
    packed_layers.register_attention()
    assert movement.share > 10 * MAX_SHARE
    with pytest.raises(ConfigError, match=r"packed samples see each other.*sequence_packing = false"):
        refuse_leaks(movement)


def test_mamba_mixers_over_the_whole_row_are_refused(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(mamba_mixers(tiny.load())):
        assert tiny.family.model_type != "nemotron_h_omni"
        return

    def unpatched(module: torch.nn.Module) -> None:
        keep_mamba_in_segments(module)
        for mixer in mamba_mixers(module):
            segmented = mixer.forward
            mixer.forward = lambda *states, segments=None, plain=segmented, **settings: plain(*states, **settings)

    monkeypatch.setattr(nemotron_omni, "keep_mamba_in_segments", unpatched)
    movement = probe(tiny)
    assert movement.share > 10 * MAX_SHARE
    with pytest.raises(ConfigError, match="packed samples see each other"):
        refuse_leaks(movement)


def test_a_movement_that_is_no_number_or_nothing_proves_nothing() -> None:
    for movement in (Movement(first=0.0, others=0.0), Movement(first=float("nan"), others=float("nan"))):
        with pytest.raises(ConfigError):
            refuse_leaks(movement)


def test_the_copy_has_one_layer_of_each_kind_and_few_experts(tiny: Any) -> None:
    config = AutoConfig.from_pretrained(tiny.folder)
    text = config.get_text_config()
    for key in ("num_experts", "n_routed_experts"):
        if getattr(text, key, None):
            setattr(text, key, 32)
    if getattr(text, "layers_block_type", None):
        text.layers_block_type = [*text.layers_block_type] * 3
    small = cut_config(config).get_text_config()
    assert small.num_hidden_layers == (4 if tiny.family.model_type == "nemotron_h_omni" else 1)
    assert {getattr(small, key) for key in ("num_experts", "n_routed_experts") if getattr(small, key, None)} <= {8}
    assert small.hidden_size == text.hidden_size
