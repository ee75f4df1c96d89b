"""Qwen3-VL (dense and MoE) and Cosmos3 Edge: one vision tower over (t, h, w) patch grids, and M-RoPE.

Tensor names carry their shape: B rows, T tokens, D width, V vocabulary, N patches, H and W pixels.
"""

import copy
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional
from transformers import ProcessorMixin
from transformers.image_utils import pil_torch_interpolation_mapping

from vlm_catalogs.render.rendered import MediaPlan, Rendered
from vlm_catalogs.sample import Sample
from vlm_train.encode import blank_frames, load_frames
from vlm_train.models.family import (
    Batch,
    EncodedMedium,
    EncodedSample,
    TokenCache,
    check_grid,
    collate_rows,
    encoded_sample,
)
from vlm_train.models.linear_patches import use_linear_patches
from vlm_train.models.mrope import mrope_positions_3T
from vlm_train.models.packed_layers import packed_arguments
from vlm_train.models.pretrained import load_pretrained

if TYPE_CHECKING:
    from vlm_catalogs.config import Config


class GridTowerFamily:
    """The families whose images and videos go through one tower as patches, each placeholder kind with its own id."""

    def __init__(self, config: Any, processor: ProcessorMixin) -> None:
        self.model_type: str = config.model_type
        self.merge_size: int = config.vision_config.spatial_merge_size
        self.placeholder_ids: tuple[int, ...] = (config.image_token_id, config.video_token_id)
        self.pad_id: int = processor.tokenizer.pad_token_id
        self._image_processor = processor.image_processor
        self._video_processor = processor.video_processor

    def load(self, model: str, *, dtype: torch.dtype, device: torch.device | str, config: "Config") -> nn.Module:
        """The module with every weight of the checkpoint (see Family)."""
        return self.prepare(load_pretrained(model, dtype=dtype, device=device, config=config))

    def prepare(self, module: nn.Module) -> nn.Module:
        """``module`` as it trains: patches through a matrix product."""
        use_linear_patches(module)
        return module

    def with_config(self, config: Any) -> "GridTowerFamily":
        """The same family for a model of ``config`` (see Family)."""
        other = copy.copy(self)
        other.placeholder_ids = (config.image_token_id, config.video_token_id)
        return other

    def probe_medium(self, config: Any) -> EncodedMedium:
        """The smallest image that a model of ``config`` takes, of a single token."""
        side = self.merge_size
        pixels = torch.zeros(side * side, _patch_values(config.vision_config))
        return EncodedMedium(kind="image", pixels=pixels, grid=(1, side, side), num_tokens=1)

    def encode(self, sample: Sample, rendered: Rendered, *, blank: bool = False) -> EncodedSample:
        """The tensors of one sample (see Family)."""
        media = [self._encode_medium(sample, plan, blank) for plan in rendered.media]
        return encoded_sample(sample, rendered, media, placeholder_ids=self.placeholder_ids, blank=blank)

    def _encode_medium(self, sample: Sample, plan: MediaPlan, blank: bool) -> EncodedMedium:
        processor = self._image_processor if plan.kind == "image" else self._video_processor
        frames = blank_frames(plan) if blank else load_frames(sample, plan, _resizer(processor, plan))
        # The frames have their planned size already, and blank ones must keep it: the processor only makes patches.
        if plan.kind == "image":
            encoded = processor(list(frames), do_resize=False, input_data_format="channels_first", return_tensors="pt")
            pixels, grid = encoded["pixel_values"], encoded["image_grid_thw"]
        else:
            encoded = processor([frames], **_video_settings(processor))
            pixels, grid = encoded["pixel_values_videos"], encoded["video_grid_thw"]
        encoded_grid = tuple(grid[0].tolist())
        check_grid(sample, plan.name, planned=plan.grid, encoded=encoded_grid)
        return EncodedMedium(kind=plan.kind, pixels=pixels, grid=plan.grid, num_tokens=plan.num_tokens)

    def collate(self, rows: Sequence[Sequence[EncodedSample]]) -> Batch:
        """One micro-batch, padded on the right, with M-RoPE positions of each sample."""
        return collate_rows(rows, pad_id=self.pad_id, positions_3T=self._positions)

    def _positions(self, sample: EncodedSample) -> Tensor:
        placeholders_T = torch.isin(sample.input_ids_T, torch.tensor(self.placeholder_ids))
        grids = [medium.grid for medium in sample.media]
        return mrope_positions_3T(placeholders_T, grids, merge_size=self.merge_size)

    def hidden_states(self, module: nn.Module, batch: Batch, *, cache: TokenCache | None = None) -> Tensor:
        """What the output layer takes (B, T, D), from exactly one call of the tower whatever the media of the batch."""
        model: Any = module
        features = _tower_features(model, batch)
        if batch.media:
            given = {"input_ids": batch.input_ids_BT, "mm_encoder_outputs": _by_kind(features, batch.media)}
        else:
            given = {"inputs_embeds": model.get_input_embeddings()(batch.input_ids_BT) + _zero(features)}
        # Three rows of positions: a fourth, of text, would only make transformers build the mask that segments replace.
        output = model.model(
            **given,
            position_ids=batch.position_ids_3BT,
            past_key_values=cache,
            use_cache=cache is not None,
            **packed_arguments(batch),
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def next_hidden_states(
        self, module: nn.Module, ids_BT: Tensor, *, positions_3BT: Tensor | None, cache: TokenCache
    ) -> Tensor:
        """What the output layer takes of text after that in ``cache`` (see Family)."""
        model: Any = module
        output = model.model.language_model(
            inputs_embeds=model.get_input_embeddings()(ids_BT),
            position_ids=positions_3BT,
            past_key_values=cache,
            use_cache=True,
        )
        return output.last_hidden_state  # type: ignore[no-any-return]

    def output_layer(self, module: nn.Module) -> nn.Module:
        """The layer that makes logits of hidden states."""
        return module.lm_head  # type: ignore[return-value]

    def logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """The logits (B, T, V)."""
        logits_BTV: Tensor = self.output_layer(module)(self.hidden_states(module, batch))
        return logits_BTV


def _resizer(processor: Any, plan: MediaPlan) -> Any:
    """How the processor resizes, to the planned size instead of the size that it would choose itself."""
    interpolation = pil_torch_interpolation_mapping[processor.resample]
    size = [plan.height, plan.width]

    def resize(frame_1_3HW: Tensor) -> Tensor:
        resized: Tensor = functional.resize(frame_1_3HW, size, interpolation=interpolation, antialias=True)
        return resized

    return resize


def _video_settings(processor: Any) -> dict[str, Any]:
    settings = {"do_resize": False, "do_sample_frames": False, "input_data_format": "channels_first"}
    if hasattr(processor, "cap_pixels_per_frame"):
        # Acts on resizing only, which is done; unset, it warns.
        settings["cap_pixels_per_frame"] = False
    return {**settings, "return_tensors": "pt"}


def _tower_features(module: Any, batch: Batch) -> Any:
    """What the tower gives for the media of the batch, or for one black square of a single feature where it has none.

    A batch of text alone calls the tower all the same: every parameter gets a gradient, and under FSDP every rank makes
    the same calls. Backwards, too: with any media, what the first layer of text takes needs a gradient where something
    of the tower trains, even deepstack mergers alone, whose features enter above it; else that layer's gradients would
    be reduced, or its parameters gathered, at another time than on ranks with other media.
    """
    device = batch.input_ids_BT.device
    if batch.media:
        pixels_N = torch.cat([medium.pixels for medium in batch.media])
        grids = [medium.grid for medium in batch.media]
    else:
        side = module.config.vision_config.spatial_merge_size
        pixels_N = torch.zeros(side * side, _patch_values(module.config.vision_config), device=device)
        grids = [(1, side, side)]
    features = module.model.get_image_features(pixels_N, torch.tensor(grids, device=device), return_dict=True)
    zero = _zero(features)
    if zero.requires_grad and not features.pooler_output[0].requires_grad:
        features.pooler_output = tuple(one + zero for one in features.pooler_output)
    return features


def _patch_values(vision_config: Any) -> int:
    channels = getattr(vision_config, "in_channels", None) or vision_config.num_channels
    return int(channels * getattr(vision_config, "temporal_patch_size", 1) * vision_config.patch_size**2)


def _by_kind(features: Any, media: Sequence[EncodedMedium]) -> dict[str, Any]:
    """The features as the model's forward takes them: images and videos apart, each in placeholder order."""
    outputs: dict[str, Any] = {}
    for kind in sorted({medium.kind for medium in media}):
        chosen = [index for index, medium in enumerate(media) if medium.kind == kind]
        outputs[kind] = SimpleNamespace(
            pooler_output=_take(features.pooler_output, chosen),
            deepstack_features=[_take(level, chosen) for level in getattr(features, "deepstack_features", None) or ()],
        )
    return outputs


def _take(items: Sequence[Tensor], chosen: Iterable[int]) -> tuple[Tensor, ...]:
    return tuple(items[index] for index in chosen)


def _zero(features: Any) -> Tensor:
    """Nothing, as a function of every parameter of the tower."""
    levels = [features.pooler_output, *(getattr(features, "deepstack_features", None) or ())]
    return sum((0.0 * torch.cat(level).sum() for level in levels), torch.zeros(()).to(levels[0][0].device))
