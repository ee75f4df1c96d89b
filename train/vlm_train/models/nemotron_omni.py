"""Nemotron-3 Omni: a RADIO tower that packs images and takes videos one by one, over the NemotronH language model.

transformers 5.23 cannot run a batch with videos through the model's own forward, nor images and videos in one call.
So features are computed per item here, put in their places in placeholder order, and the language model gets
embeddings. Nothing prunes video tokens on this path, whatever ``video_pruning_rate`` the checkpoint has.

Tensor names carry their shape: B rows, T tokens, D width, V vocabulary, N patches or frames, H and W pixels.
"""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional
from transformers import ProcessorMixin
from transformers.image_utils import pil_torch_interpolation_mapping
from transformers.modeling_layers import GradientCheckpointingLayer

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
from vlm_train.models.packed_layers import keep_mamba_in_segments, packed_arguments
from vlm_train.models.pretrained import load_pretrained

if TYPE_CHECKING:
    from vlm_catalogs.config import Config


class NemotronOmni:
    """``nemotron_h_omni``: images and videos both stand at image tokens."""

    def __init__(self, config: Any, processor: ProcessorMixin) -> None:
        self.model_type: str = config.model_type
        self.image_token_id: int = config.image_token_id
        self.frames_per_group: int = config.video_temporal_patch_size
        self.pad_id: int = processor.tokenizer.pad_token_id
        self._image_processor = processor.image_processor
        self._video_processor = processor.video_processor

    def load(self, model: str, *, dtype: torch.dtype, device: torch.device | str, config: "Config") -> nn.Module:
        """The module with every weight of the checkpoint (see Family); the sound tower is frozen, nothing uses it."""
        return self.prepare(load_pretrained(model, dtype=dtype, device=device, config=config))

    def prepare(self, module: nn.Module) -> nn.Module:
        """``module`` as it trains: Mamba mixers heed segments, what nothing uses is frozen."""
        keep_mamba_in_segments(module)
        freeze_unused(module)
        return module

    def with_config(self, config: Any) -> "NemotronOmni":
        """The same family for a model of ``config`` (see Family)."""
        other = copy.copy(self)
        other.image_token_id = config.image_token_id
        return other

    def probe_medium(self, config: Any) -> EncodedMedium:
        """The smallest image that a model of ``config`` takes, of a single token."""
        side = round(1 / config.downsample_ratio)
        pixels = torch.zeros(side * side, 3 * config.vision_config.patch_size**2)
        return EncodedMedium(kind="image", pixels=pixels, grid=(1, side, side), num_tokens=1)

    def encode(self, sample: Sample, rendered: Rendered, *, blank: bool = False) -> EncodedSample:
        """The tensors of one sample (see Family)."""
        media = [self._encode_medium(sample, plan, blank) for plan in rendered.media]
        return encoded_sample(sample, rendered, media, placeholder_ids=(self.image_token_id,), blank=blank)

    def _encode_medium(self, sample: Sample, plan: MediaPlan, blank: bool) -> EncodedMedium:
        resize = self._resize_image if plan.kind == "image" else _resize_frame
        size = (plan.height, plan.width)
        frames = blank_frames(plan).float() if blank else load_frames(sample, plan, lambda frame: resize(frame, size))
        if plan.kind == "image":
            pixels, grid = self._image_patches(frames, plan)
        else:
            pixels, grid = self._normalized_frames(frames)
        check_grid(sample, plan.name, planned=plan.grid, encoded=grid)
        return EncodedMedium(kind=plan.kind, pixels=pixels, grid=plan.grid, num_tokens=plan.num_tokens)

    def _resize_image(self, frame_1_3HW: Tensor, size: tuple[int, int]) -> Tensor:
        frame = frame_1_3HW.float()  # as the processor does, so that the bicubic overshoot is kept
        if tuple(frame.shape[-2:]) == size:
            return frame
        interpolation = pil_torch_interpolation_mapping[self._image_processor.resample]
        resized: Tensor = functional.resize(frame, list(size), interpolation=interpolation, antialias=True)
        return resized

    def _image_patches(self, frames: Tensor, plan: MediaPlan) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches from the processor, told to leave the grid as planned: it resizes nothing then."""
        num_patches = plan.grid[1] * plan.grid[2]
        limits = {"min_num_patches": 1, "max_num_patches": num_patches, "max_model_len": num_patches + 4}
        encoded = self._image_processor(
            list(frames), do_convert_rgb=False, input_data_format="channels_first", return_tensors="pt", **limits
        )
        height, width = encoded["image_grid_hw"][0].tolist()
        return encoded["pixel_values"], (1, height, width)

    def _normalized_frames(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Frames as the video processor normalizes them; called directly it would choose the size anew."""
        processor = self._video_processor
        mean = torch.tensor(processor.norm_mean).view(1, 3, 1, 1)
        std = torch.tensor(processor.norm_std).view(1, 3, 1, 1)
        num_frames, _, height, width = frames.shape
        grid = (-(-num_frames // self.frames_per_group), height // processor.patch_size, width // processor.patch_size)
        return (frames / 255.0 - mean) / std, grid

    def collate(self, rows: Sequence[Sequence[EncodedSample]]) -> Batch:
        """One micro-batch, padded on the right; the language model has no rotary positions."""
        return collate_rows(rows, pad_id=self.pad_id, positions_3T=None)

    def hidden_states(self, module: nn.Module, batch: Batch, *, cache: TokenCache | None = None) -> Tensor:
        """What the output layer takes (B, T, D); the language model gets embeddings with the features in their places.

        The language model is called below its output layer, so no logits of the whole batch are made.
        """
        model: Any = module
        _ready_tower(model)
        embeds_BTD = model.get_input_embeddings()(batch.input_ids_BT)
        features = _features(model, batch.media)
        if features:
            places_BT1 = (batch.input_ids_BT == self.image_token_id).unsqueeze(-1)
            embeds_BTD = embeds_BTD.masked_scatter(places_BT1, torch.cat(features).to(embeds_BTD.dtype))
        if {medium.kind for medium in batch.media} != {"image", "video"}:
            embeds_BTD = embeds_BTD + _zero(model).to(embeds_BTD.dtype)
        output = model.language_model.model(
            inputs_embeds=embeds_BTD, past_key_values=cache, use_cache=cache is not None, **packed_arguments(batch)
        )
        hidden_BTD: Tensor = output.last_hidden_state
        return hidden_BTD

    def next_hidden_states(
        self, module: nn.Module, ids_BT: Tensor, *, positions_3BT: Tensor | None, cache: TokenCache
    ) -> Tensor:
        """What the output layer takes of text after that in ``cache`` (see Family)."""
        model: Any = module
        embeds_BTD = model.get_input_embeddings()(ids_BT)
        output = model.language_model.model(inputs_embeds=embeds_BTD, past_key_values=cache, use_cache=True)
        return output.last_hidden_state  # type: ignore[no-any-return]

    def output_layer(self, module: nn.Module) -> nn.Module:
        """The layer that makes logits of hidden states."""
        return module.language_model.lm_head  # type: ignore[union-attr, return-value]

    def logits(self, module: nn.Module, batch: Batch) -> Tensor:
        """The logits (B, T, V), in fp32 as the model's own forward gives them."""
        logits_BTV: Tensor = self.output_layer(module)(self.hidden_states(module, batch))
        return logits_BTV.float()


def freeze_unused(module: nn.Module) -> None:
    """Freeze the sound tower where the model has one: no sample holds sound, so nothing trains it."""
    for name in ("audio_tower", "embed_audio"):
        unused = getattr(module, name, None)
        if unused is not None:
            unused.requires_grad_(False)


def _resize_frame(frame_1_3HW: Tensor, size: tuple[int, int]) -> Tensor:
    frame = frame_1_3HW.float()
    if tuple(frame.shape[-2:]) == size:
        return frame
    return nn.functional.interpolate(frame, size=size, mode="bicubic", align_corners=False, antialias=True)


def _ready_tower(module: Any) -> None:
    """Keep RADIO in eval mode: what it drops in train mode is random. Its weights train all the same.

    Its layers keep the flag of the whole model, which is what switches their gradient checkpointing on; they read it
    for nothing else. The tower casts pixels to its config's dtype, which must be that of its weights.
    """
    module.vision_model.config.dtype = next(module.vision_model.parameters()).dtype
    module.vision_model.eval()
    for layer in module.vision_model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = module.training


def _features(module: Any, media: Sequence[EncodedMedium]) -> list[Tensor]:
    """The features of each medium, in order: all images in one call, each video in its own."""
    images = [medium for medium in media if medium.kind == "image"]
    of_images = iter(_image_features(module, images) if images else ())
    return [next(of_images) if medium.kind == "image" else _video_features(module, medium) for medium in media]


def _image_features(module: Any, images: Sequence[EncodedMedium]) -> Sequence[Tensor]:
    pixels_N = torch.cat([image.pixels for image in images])
    grids = torch.tensor([image.grid[1:] for image in images], device=pixels_N.device)
    return module.get_image_features(pixels_N, grids, return_dict=True).pooler_output  # type: ignore[no-any-return]


def _video_features(module: Any, video: EncodedMedium) -> Tensor:
    features = module.get_video_features(video.pixels, return_dict=True).pooler_output
    return features.flatten(0, 1)  # type: ignore[no-any-return]


def _zero(module: nn.Module) -> Tensor:
    """Nothing, as a function of every trainable parameter outside the language model.

    Images and videos enter the tower by different weights, and a batch may have neither: every parameter gets a
    gradient all the same.
    """
    towers = [parameter for name, parameter in module.named_parameters() if not name.startswith("language_model.")]
    touched = [0.0 * parameter.sum() for parameter in towers if parameter.requires_grad]
    return torch.stack(touched).sum() if touched else torch.zeros(())
