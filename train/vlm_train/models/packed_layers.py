"""Layers that mix tokens, kept inside the samples of packed rows: attention and Mamba mixers, segment by segment.

Both take the segments as the keyword ``segments``, which transformers hands from a model's forward down to its layers.
Without it they are what transformers runs. No mask of T x T tokens is ever built. Tensor names carry their shape: B
rows, T tokens, D width, H heads, E head width, L tokens of a segment.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from vlm_train.models.family import Batch
from vlm_train.models.segments import Segments

SEGMENTED = "vlm_mix_segmented"
"""Name of our attention among those of transformers."""
MAMBA_MIXER = "NemotronHMamba2Mixer"
_attend: Callable[..., tuple[Tensor, None]] = sdpa_attention_forward


def register_attention() -> None:
    """Make ``attn_implementation = SEGMENTED`` known to transformers; its masks for padding are those of sdpa."""
    AttentionInterface.register(SEGMENTED, segmented_attention)
    AttentionMaskInterface.register(SEGMENTED, sdpa_mask)


def segmented_attention(
    module: nn.Module,
    query_BHTE: Tensor,
    key_BHTE: Tensor,
    value_BHTE: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Causal attention (B, T, H, E) within each segment; that of sdpa where there are no segments."""
    if segments is None:
        return _attend(module, query_BHTE, key_BHTE, value_BHTE, attention_mask, **settings)
    if attention_mask is not None:
        raise AssertionError("packed rows take no attention mask: their segments say what attends to what")
    if query_BHTE.is_cuda and query_BHTE.dtype in (torch.float16, torch.bfloat16) and _flash_attention() is not None:
        return _flash(query_BHTE, key_BHTE, value_BHTE, segments, settings.get("scaling")), None
    rows = []
    for row, lengths in enumerate(segments.lengths):
        split = [
            torch.split(states[row : row + 1], list(lengths), dim=2) for states in (query_BHTE, key_BHTE, value_BHTE)
        ]
        attended = [_attend(module, *states, None, **settings)[0] for states in zip(*split, strict=True)]
        rows.append(torch.cat(attended, dim=1))
    return torch.cat(rows), None


@cache
def _flash_attention() -> Any:
    """The variable-length kernel of flash-attn, None where it is not installed."""
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return flash_attn_varlen_func


def _flash(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor, segments: Segments, scale: float | None) -> Tensor:
    """As flash-attn computes it: all rows as one sequence of segments. Has never run on a GPU here."""
    flat = [states.transpose(1, 2).flatten(0, 1) for states in (query_BHTE, key_BHTE, value_BHTE)]
    bounds = segments.boundaries_S
    longest = segments.max_length
    output = _flash_attention()(*flat, bounds, bounds, longest, longest, softmax_scale=scale, causal=True)
    return output.unflatten(0, (query_BHTE.shape[0], query_BHTE.shape[2]))  # type: ignore[no-any-return]


def keep_mamba_in_segments(module: nn.Module) -> None:
    """Let every Mamba mixer of ``module`` heed ``segments``, in place."""
    for mixer in mamba_mixers(module):
        mixer.forward = MethodType(_mixer_forward, mixer)


def mamba_mixers(module: nn.Module) -> Iterator[Any]:
    """The mixers that carry state from token to token."""
    # FSDP renames the class of what it shards, so its parents count too.
    return (one for one in module.modules() if any(kind.__name__ == MAMBA_MIXER for kind in type(one).__mro__))


def _mixer_forward(
    mixer: Any,
    hidden_states: Tensor,
    cache_params: Any = None,
    attention_mask: Tensor | None = None,
    *,
    segments: Segments | None = None,
    **settings: Any,
) -> Tensor:
    def plain(states_BTD: Tensor, **more: Any) -> Tensor:
        mask = attention_mask if segments is None else None
        output: Tensor = type(mixer).forward(mixer, states_BTD, cache_params, mask, **settings, **more)
        return output

    if segments is None:
        return plain(hidden_states)
    if hidden_states.is_cuda and has_mamba_kernels():
        # The kernels take the segment of each token. This has never run on a GPU here.
        return plain(hidden_states, seq_idx=segments.numbers_BT)
    return _mix_segments(plain, hidden_states, segments)


@cache
def has_mamba_kernels() -> bool:
    """True where both packages are installed that know ``seq_idx``."""
    try:
        import causal_conv1d  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
        import mamba_ssm  # type: ignore[import-not-found, unused-ignore]  # noqa: F401
    except ImportError:
        return False
    return True


def _mix_segments(mix: Any, states_BTD: Tensor, segments: Segments) -> Tensor:
    """``mix`` of each segment alone. Segments of like length go together, padded on the right, which is exact."""
    pieces = [piece for row, lengths in zip(states_BTD, segments.lengths, strict=True) for piece in row.split(lengths)]
    alike: dict[int, list[int]] = defaultdict(list)
    for number, piece_LD in enumerate(pieces):
        alike[len(piece_LD).bit_length()].append(number)
    mixed: dict[int, Tensor] = {}
    for numbers in alike.values():
        together = mix(nn.utils.rnn.pad_sequence([pieces[number] for number in numbers], batch_first=True))
        mixed |= {number: one[: len(pieces[number])] for number, one in zip(numbers, together, strict=True)}
    return torch.cat([mixed[number] for number in range(len(pieces))]).view(*states_BTD.shape[:2], -1)


def packed_arguments(batch: Batch) -> dict[str, Any]:
    """What a model's forward takes beside a batch that is packed; nothing for one that is not."""
    return {} if batch.segments is None else {"segments": batch.segments}
