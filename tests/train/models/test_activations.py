"""The estimate of what a step keeps in memory, against what torch holds in real forward and backward passes."""

from typing import Any

import pytest
import torch
from tests.train.models.test_rank_gradients import IMAGES, TEXT
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from vlm_train.activations import activations
from vlm_train.heaviest import MicroBatch
from vlm_train.models.leak_probe import _random_model
from vlm_train.models.pretrained import enable_gradient_checkpointing, read_config
from vlm_train.shard_parameters import WholeForward


class Held(TorchDispatchMode):
    """Counts the bytes of tensors that were made inside and are still there."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self._known, self._refs, self._now, self.peak = known, dict[int, tuple[StorageWeakRef, int]](), 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves(output):
            if isinstance(one, torch.Tensor) and one.untyped_storage()._cdata not in self._known:
                self._add(one.untyped_storage())
        self.peak = max(self.peak, self.now())
        return output

    def _add(self, storage: Any) -> None:
        place = storage._cdata
        if place in self._refs and not self._refs[place][0].expired():
            return
        self._now += storage.nbytes() - self._refs.get(place, (None, 0))[1]
        self._refs[place] = (StorageWeakRef(storage), storage.nbytes())

    def now(self) -> int:
        for place in [place for place, (one, _) in self._refs.items() if one.expired()]:
            self._now -= self._refs.pop(place)[1]
        return self._now


def larger(config: Any) -> Any:
    """The tiny model with four times the width and twice the layers."""
    text, vision = config.get_text_config(), config.vision_config
    text.hidden_size, text.intermediate_size, text.head_dim = 256, 768, 64
    if "mrope_section" in (getattr(text, "rope_parameters", None) or {}):
        text.rope_parameters["mrope_section"] = [16, 8, 8]
    if getattr(text, "layers_block_type", None):
        text.layers_block_type = list(text.layers_block_type) * 2
    else:
        text.num_hidden_layers = 6
        if getattr(text, "layer_types", None):
            text.layer_types = [text.layer_types[0]] * 6
    for key, value in {"moe_intermediate_size": 128, "moe_shared_expert_intermediate_size": 128}.items():
        if getattr(text, key, None):
            setattr(text, key, value)
    if getattr(text, "mamba_num_heads", None):
        text.mamba_num_heads = 32
    vision.hidden_size = 128
    for one, key, value in (
        (vision, "intermediate_size", 256),
        (vision, "out_hidden_size", 256),
        (config, "vision_hidden_size", 128),
    ):
        if getattr(one, key, None):
            setattr(one, key, value)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "larger"])
@pytest.mark.parametrize("index", [TEXT, IMAGES])
@pytest.mark.parametrize("recomputes", [False, "selective", True])
def test_the_estimate_is_off_by_less_than_a_quarter(tiny: Any, size: str, index: int, recomputes: Any) -> None:
    config = read_config(str(tiny.folder))
    module: Any = tiny.family.prepare(_random_model(larger(config) if size == "larger" else config, torch.float32))
    module.train()
    if recomputes:
        enable_gradient_checkpointing(module, selective=recomputes == "selective")
    batch = tiny.rows((index,) * (30 if index == TEXT else 6))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ours = [*module.parameters(), *(one.grad for one in module.parameters()), *module.buffers()]
    ours += [medium.pixels for medium in batch.media]
    with Held({one.untyped_storage()._cdata for one in ours}) as held:
        loss = WholeForward(module, tiny.family)(batch).sum()
        kept, held.peak = held.now(), 0
        loss.backward()
    one = MicroBatch(
        epoch=0,
        epoch_step=0,
        rank=0,
        padded_tokens=batch.input_ids_BT.numel(),
        patches=sum(medium.pixels.shape[0] for medium in batch.media),
        supervised_tokens=batch.num_supervised_tokens,
    )
    said = activations(module, one, bytes_of_value=4, recomputes=recomputes)
    vocabulary = config.get_text_config().vocab_size
    logits = batch.num_supervised_tokens * vocabulary * 2 * 8
    estimate = said.kept + max(said.recomputed, logits)
    print(f"kept {kept:,} said {said.kept:,}; peak {held.peak:,} said {estimate:,}: {estimate / held.peak:.2f}")
    assert 0.75 <= estimate / held.peak <= 1.25
