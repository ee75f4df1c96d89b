"""The floating-point operations that a step needs, whatever way it is computed: the numerator of MFU.

As in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): a weight matrix costs 2 operations a token and value
forward, 2 for the gradient of its input and 2 for its own, so 6 x active parameters where all train; attention costs
12 x width x length a token and layer. What differs, because it is what the work here needs:

- of experts only those count that a token goes to; embeddings are looked up and cost nothing;
- a frozen matrix has no gradient of its own, a vision tower of which nothing trains none at all, and pixels have none;
- the output layer counts for supervised tokens only: no other token reaches it;
- causal attention is half of a square, and a sample in a packed row attends only to itself;
- the vision tower counts by patches, its attention by frames and in full, what merges patches by the tokens it makes.

Recomputation (of checkpointed layers, of logits in chunks) is not counted, nor is padding, nor what is no product of
matrices: norms, activations, the scan of Mamba; nor the few class and register tokens that RADIO adds to each frame.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from vlm_train.moe import is_router

if TYPE_CHECKING:
    from vlm_train.models.family import Batch, Family

VISION = ("visual", "vision_model", "multi_modal_projector", "projector")
"""Pieces of names that only parameters outside of the text model have."""
MERGING = ("merger", "deepstack_merger_list", "multi_modal_projector", "projector")
"""Of those: what takes the patches of a token together."""
FIRST = ("patch_embed", "patch_embedding", "patch_projection", "video_patch_projection")
"""What pixels enter by: they need no gradient."""
UNUSED = ("audio_tower", "embed_audio")
"""No sample has sound."""
OF_VIDEOS, OF_IMAGES = ("video_patch_projection",), ("patch_projection",)
"""What patches of RADIO enter by: those of videos, of several frames each, by their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFlops:
    """What one token, patch or pair of them costs, forward and backward."""

    token: int
    supervised_token: int
    """In the output layer."""
    pair: int
    """Two tokens of a sample, of which one sees the other: by attention, over all layers."""
    patch: int
    """Of an image."""
    video_patch: int
    media_token: int
    patch_pair: int
    """Two patches of a frame."""

    def of(self, batches: "Iterable[Batch]") -> int:
        """The operations of ``batches``; rows that only fill the step need none."""
        return sum(self._of(batch) for batch in batches)

    def _of(self, batch: "Batch") -> int:
        lengths = [length for length, name in zip(batch.lengths, batch.sample_ids, strict=True) if name]
        frames = [(one.grid[0], one.grid[1] * one.grid[2]) for one in batch.media]
        of_patch = [self.video_patch if one.kind == "video" else self.patch for one in batch.media]
        return (
            self.token * sum(lengths)
            + self.supervised_token * batch.num_supervised_tokens
            + self.pair * sum(length * (length + 1) // 2 for length in lengths)
            + sum(cost * count * patches for cost, (count, patches) in zip(of_patch, frames, strict=True))
            + self.media_token * sum(one.num_tokens for one in batch.media)
            + self.patch_pair * sum(count * patches**2 for count, patches in frames)
        )


def step_flops(module: nn.Module, family: "Family") -> StepFlops:
    """What the parts of a step of ``module`` cost; it may stand on the meta device, frozen as it trains."""
    head = family.output_layer(module)
    of_kind = {"token": 0, "supervised_token": 0, "patch": 0, "video_patch": 0, "media_token": 0}
    vision_trains = any(one.requires_grad for name, one in module.named_parameters() if _is_of(name, VISION))
    used = used_shares(module)
    for name, parameter in matrices(module):
        is_vision = _is_of(name, VISION)
        passes_on = vision_trains if is_vision else True
        backward = 2 * (passes_on and not _is_of(name, FIRST)) + 2 * parameter.requires_grad
        cost = round((2 + backward) * parameter.numel() * used.get(name, 1.0))
        kind = "supervised_token" if parameter is head.weight else kind_of_matrix(name)
        for one in ("patch", "video_patch") if kind == "patch" else (kind,):
            of_kind[one] += cost * (one not in _entered_by_others(name))
    text, vision = _attention_widths(module)
    return StepFlops(**of_kind, pair=12 * text, patch_pair=(12 if vision_trains else 4) * vision)


def _entered_by_others(name: str) -> tuple[str, ...]:
    """The kinds of patches that do not go through the projection of this name."""
    return ("patch",) * _is_of(name, OF_VIDEOS) + ("video_patch",) * (_is_of(name, OF_IMAGES))


def kind_of_matrix(name: str) -> str:
    """What goes through a matrix of this name: ``token``, ``patch`` or, after patches are merged, ``media_token``."""
    if not is_of_vision(name):
        return "token"
    return "media_token" if _is_of(name, MERGING) else "patch"


def matrices(module: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """The weights that are multiplied with what flows through the model, by name; a shared one where it multiplies."""
    for path, one in module.named_modules():
        if _is_of(path, UNUSED):
            continue
        if isinstance(one, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or is_router(one):
            yield f"{path}.weight", one.weight
        elif path.endswith(".experts"):
            yield from ((f"{path}.{name}", value) for name, value in one.named_parameters(recurse=False))


def used_shares(module: nn.Module) -> Mapping[str, float]:
    """Expert weight -> the part of it that one token goes through."""
    shares = {}
    for path, one in module.named_modules():
        if is_router(one):
            router: Any = one
            experts = f"{path.rpartition('.')[0]}.experts"
            shares.update(
                {
                    f"{experts}.{name}": router.top_k / len(value)
                    for name, value in module.get_submodule(experts).named_parameters(recurse=False)
                }
            )
    return shares


def _attention_widths(module: nn.Module) -> tuple[int, int]:
    """Heads x their size, summed over the layers of the text model and of the vision tower."""
    text = vision = 0
    for path, one in module.named_modules():
        found: Any = one
        if _is_of(path, UNUSED) or not (hasattr(one, "q_proj") or hasattr(one, "qkv")):
            continue
        width = found.q_proj.out_features if hasattr(one, "q_proj") else found.qkv.out_features // 3
        text, vision = (text, vision + width) if _is_of(path, VISION) else (text + width, vision)
    return text, vision


def is_of_vision(name: str) -> bool:
    """Does a parameter or module of this name lie outside of the text model?"""
    return _is_of(name, VISION)


def _is_of(name: str, pieces: tuple[str, ...]) -> bool:
    return any(piece in pieces for piece in name.split("."))
