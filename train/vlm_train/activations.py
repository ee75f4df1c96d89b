"""How much of a forward pass is kept for the backward pass? An estimate from the shapes of a model's matrices alone.

A product keeps its input, and its output is kept about twice by what follows: a norm, an activation, rotary positions,
attention (whose matrices are never stored). Inputs that other products share, or that are such a second copy already,
count once. What a layer recomputes is not kept, only its input, and one layer at a time has all of its own. Against
what torch holds in real passes of small models in fp32 (four families, text and pictures, each kind of recomputation)
it is off by less than a quarter, which a test holds; the rule that it replaced, 34 bytes a token, hidden value and
layer (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1), was off by up to two thirds. No GPU was measured.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vlm_train.flops import OF_VIDEOS, is_of_vision, kind_of_matrix, matrices, used_shares

if TYPE_CHECKING:
    from torch import nn

    from vlm_train.heaviest import MicroBatch

LAYER = re.compile(r"(.*\.(?:layers|layer|blocks)\.\d+)\.")
SHARED_INPUT = ("k_proj", "v_proj", "gate_proj")
MADE_INPUT = ("down_proj", "fc2", "linear_fc2")
"""Their input is what an activation made of a product, which counts it."""
LEFT_OUT = ("conv1d", *OF_VIDEOS)
"""Part of the scan; what patches of images do not go through."""
SCAN_WHOLE, SCAN_KEPT = 5, 4
"""So many times the rule for a Mamba layer without kernels: its scan is then written out in many products."""
BESIDE_LAYERS = 4
"""Hidden values of a token outside of layers: the embedding, the last norm, what reaches the output layer."""

Recomputes = bool | Literal["selective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes of one micro-batch."""

    kept: int
    recomputed: int
    """Of the largest layer, while it is computed again."""


@dataclass(slots=True)
class _Layer:
    """Values of one token (or patch) in a layer."""

    whole: float = 0
    products: float = 0
    """Results of products alone, which selective recomputation keeps."""
    width: int = 0


def activations(
    module: "nn.Module", batch: "MicroBatch", *, bytes_of_value: int, recomputes: Recomputes
) -> Activations:
    """What a micro-batch keeps in ``module``, which may stand on the meta device, frozen as it trains."""
    model: Any = module
    merge = int(getattr(model.config.vision_config, "spatial_merge_size", 2)) ** 2
    counts = {"token": batch.padded_tokens, "patch": batch.patches, "media_token": batch.patches // merge}
    layers, loose = _values(module)
    kept = BESIDE_LAYERS * batch.padded_tokens * float(model.config.get_text_config().hidden_size)
    kept += sum(counts[kind] * values for kind, values in loose.items())
    again = [0.0]
    for (kind, _), layer in layers.items():
        own = {False: layer.whole, True: float(layer.width), "selective": layer.products + layer.width}[recomputes]
        kept += counts[kind] * own
        again.append(counts[kind] * (layer.whole - (layer.products if recomputes == "selective" else 0)))
    return Activations(
        kept=round(kept * bytes_of_value), recomputed=round(max(again) * bytes_of_value) if recomputes else 0
    )


def _values(module: "nn.Module") -> tuple[Mapping[tuple[str, str], _Layer], Mapping[str, float]]:
    """The layers by (kind of what goes through, path), and what is in no layer by kind; of a frozen tower nothing."""
    layers: dict[tuple[str, str], _Layer] = defaultdict(_Layer)
    loose: dict[str, float] = defaultdict(float)
    used = used_shares(module)
    tower_trains = any(one.requires_grad for name, one in module.named_parameters() if is_of_vision(name))
    norms = {path for path, one in module.named_modules() if hasattr(one, "q_norm")}
    for name, weight in matrices(module):
        kind = kind_of_matrix(name)
        left_out = name.endswith("lm_head.weight") or any(piece in LEFT_OUT for piece in name.split("."))
        if left_out or (kind != "token" and not tower_trains):
            continue
        whole, products = _of_matrix(name, weight, used.get(name, 1.0), has_norm=name.rsplit(".", 2)[0] in norms)
        path = LAYER.match(name)
        if path is None:
            loose[kind] += whole
            continue
        layer = layers[kind, path[1]]
        scan = _is_scan(module, path[1])
        layer.whole += whole * (SCAN_WHOLE if scan else 1)
        layer.products += products * (SCAN_KEPT if scan else 1)
        layer.width = _width(module, kind)
    return layers, loose


def _of_matrix(name: str, weight: "nn.Parameter", share: float, *, has_norm: bool) -> tuple[float, float]:
    """(all values that a token keeps of a product, those of its result)."""
    pieces = name.split(".")
    is_expert = "experts" in pieces
    outputs, inputs = weight.shape[is_expert], weight[0].numel() // (weight.shape[1] if is_expert else 1)
    times = share * len(weight) if is_expert else 1.0
    has_own_input = not any(piece in SHARED_INPUT + MADE_INPUT for piece in pieces)
    normed = 2 * outputs if has_norm and any(piece in ("q_proj", "k_proj") for piece in pieces) else 0
    return times * (2 * outputs + inputs * has_own_input + normed), times * outputs


def _is_scan(module: "nn.Module", path: str) -> bool:
    """Is this a Mamba layer that runs as torch writes it out?"""
    from vlm_train.models.packed_layers import MAMBA_MIXER, has_mamba_kernels

    mixer = getattr(module.get_submodule(path), "mixer", None)
    return type(mixer).__name__ == MAMBA_MIXER and not has_mamba_kernels()


def _width(module: "nn.Module", kind: str) -> int:
    """Hidden values of what goes through the layers of a kind."""
    model: Any = module
    config = model.config.get_text_config() if kind == "token" else model.config.vision_config
    return int(config.hidden_size)
