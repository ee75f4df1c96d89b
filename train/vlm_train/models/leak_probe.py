"""Do packed samples see each other? Asked of a small copy of the model before a packed run begins.

Every mistake in packing is silent: the loss moves by a thousandth while the gradient turns elsewhere. So a copy of the
model with random weights and one layer of each kind, in the real type and by the real attention and Mamba path, runs a
row of three samples twice; the second time the first sample is another one of the same length. The other two must not
move. Tensor names carry their shape: T tokens, D width.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from vlm_catalogs.errors import ConfigError
from vlm_train.models.family import EncodedMedium, EncodedSample, Family
from vlm_train.models.packed_layers import SEGMENTED, register_attention

MAX_SHARE = 1e-3
"""How far the others may move, as a share of the first sample's own movement."""
NUM_TOKENS = 24
VOCABULARY = 64
SPECIAL_IDS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
MAX_EXPERTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How far hidden states moved when the first of three packed samples changed (root mean square)."""

    first: float
    others: float

    @property
    def share(self) -> float:
        """Of the others against the first."""
        return self.others / self.first if self.first > 0 else float("inf")


def refuse_leaks(movement: Movement) -> None:
    """Raise ConfigError when packed samples see each other."""
    if movement.share < MAX_SHARE:  # not a number is no proof either
        return
    raise ConfigError(
        "train.sequence_packing: packed samples see each other: when the first of three changed, the others moved by "
        f"{movement.share:.2g} of its own movement, {MAX_SHARE:g} is allowed; training would silently go wrong: set "
        "train.sequence_packing = false, or update transformers, flash-attn and mamba_ssm to versions that fit"
    )


def probe_packing(
    family: Family, config: Any, *, dtype: torch.dtype, device: torch.device, context: AbstractContextManager[object]
) -> Movement:
    """The movement in a small copy of the model that ``config`` describes. Leaves the global random state as it was."""
    small = cut_config(config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        module = family.prepare(_random_model(small, dtype)).to(device)
    module.train()
    probed = family.with_config(small)
    patches = probed.probe_medium(small)
    with torch.no_grad(), context:
        rows = [[_sample(seed, patches), _sample(2, patches), _sample(3, None)] for seed in (1, 4)]
        before_TD, after_TD = (_hidden(probed, module, row, device) for row in rows)
    moved_TD = (after_TD - before_TD).float()
    return Movement(first=_size(moved_TD[:NUM_TOKENS]), others=_size(moved_TD[NUM_TOKENS:]))


def cut_config(config: Any) -> Any:
    """A copy of ``config`` with one layer of each kind, one vision block, few experts and a small vocabulary."""
    small = copy.deepcopy(config)
    text, vision = small.get_text_config(), small.vision_config
    _cut_layers(text)
    for key in ("num_experts", "n_routed_experts"):
        if getattr(text, key, None):
            setattr(text, key, min(getattr(text, key), MAX_EXPERTS))
            text.num_experts_per_tok = min(text.num_experts_per_tok, getattr(text, key))
    _set_known(text, n_group=1, topk_group=1, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=0, eos_token_id=0)
    _set_known(vision, depth=1, num_hidden_layers=1, deepstack_visual_indexes=[0])
    _set_known(small, **SPECIAL_IDS, audio_config=None, tie_word_embeddings=False)
    return small


def _cut_layers(text: Any) -> None:
    if getattr(text, "layers_block_type", None):
        text.layers_block_type = list(dict.fromkeys(text.layers_block_type))
        return
    num_layers = text.num_hidden_layers
    if getattr(text, "num_experts", None):
        step, dense = text.decoder_sparse_step, set(text.mlp_only_layers or ())
        sparse = {number not in dense and (number + 1) % step == 0 for number in range(num_layers)}
        text.mlp_only_layers = [] if sparse == {True} else [0]
        text.decoder_sparse_step = 1
        num_layers = len(sparse)
    else:
        num_layers = 1
    text.num_hidden_layers = num_layers
    _set_known(text, layer_types=(getattr(text, "layer_types", None) or [])[:num_layers] or None)


def _set_known(config: Any, **values: Any) -> None:
    for key, value in values.items():
        if getattr(config, key, None) is not None:
            setattr(config, key, value)


def _random_model(config: Any, dtype: torch.dtype) -> nn.Module:
    register_attention()
    implementation = {"": "sdpa", "text_config": SEGMENTED}
    build: Callable[..., nn.Module] = AutoModelForImageTextToText.from_config
    return build(config, dtype=dtype, attn_implementation=implementation)


def _sample(seed: int, medium: EncodedMedium | None) -> EncodedSample:
    """Random tokens, and a picture of random patches where ``medium`` gives its shape."""
    generator = torch.Generator().manual_seed(seed)
    ids_T = torch.randint(1, 50, (NUM_TOKENS,), generator=generator)
    media: tuple[EncodedMedium, ...] = ()
    if medium is not None:
        ids_T[2 : 2 + medium.num_tokens] = SPECIAL_IDS["image_token_id"]
        pixels = torch.randn(medium.pixels.shape, generator=generator)
        media = (EncodedMedium(kind="image", pixels=pixels, grid=medium.grid, num_tokens=medium.num_tokens),)
    return EncodedSample(dataset="probe", sample_id=str(seed), input_ids_T=ids_T, labels_T=ids_T.clone(), media=media)


def _hidden(family: Family, module: nn.Module, row: Sequence[EncodedSample], device: torch.device) -> Tensor:
    return family.hidden_states(module, family.collate([row]).to(device))[0]


def _size(moved_TD: Tensor) -> float:
    return moved_TD.pow(2).mean().sqrt().item()
