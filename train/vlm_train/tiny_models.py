"""The tiny random models: each family's real classes at the smallest sizes that still hold every kind of layer."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.nemotron_h_omni import (
    configuration_nemotron_h_omni,
    image_processing_nemotron_h_omni,
    modeling_nemotron_h_omni,
    processing_nemotron_h_omni,
    video_processing_nemotron_h_omni,
)

from vlm_train.tiny_tokenizer import (
    MODEL_MAX_LENGTH,
    OMNI_TEMPLATE,
    OMNI_TOKENS,
    QWEN_TEMPLATE,
    QWEN_TOKENS,
    train_tokenizer,
)

PATCH = 16
IMAGE_SIZE: dict[str, Any] = {"shortest_edge": 32 * 32, "longest_edge": 128 * 128}
VIDEO_SIZE: dict[str, Any] = {"shortest_edge": 2 * 32 * 32, "longest_edge": 16 * 96 * 96}
FRAMES: dict[str, Any] = {"fps": 2, "min_frames": 2, "max_frames": 16}
HALF = [0.5, 0.5, 0.5]
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MODEL_MAX_LENGTH,
}
QWEN_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}
QWEN_EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
OMNI_TEXT: dict[str, Any] = {
    "model_type": "nemotron_h",
    "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
    "ssm_state_size": 16,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "chunk_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "bos_token_id": None,
}
OMNI_VISION: dict[str, Any] = {
    "model_type": "radio",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2.0,
    "patch_size": PATCH,
    "image_size": 64,
    "max_img_size": 256,
    "num_cls_tokens": 1,
    "num_registers": 1,
    "summary_idxs": [0],
    "video_temporal_patch_size": 2,
}
EDGE_VISION: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "patch_size": PATCH,
    "num_patches": 64,
    "spatial_merge_size": 2,
}

Built = tuple[PreTrainedModel, ProcessorMixin]


def build_tiny(family: str, *, seed: int) -> Built:
    """The random model and the processor of ``family``, in memory; leaves the global random state as it was."""
    builders: dict[str, Callable[[], tuple[Callable[[], PreTrainedModel], ProcessorMixin]]] = {
        "qwen3_vl": _qwen3_vl,
        "qwen3_vl_moe": _qwen3_vl_moe,
        "nemotron_h_omni": _nemotron_h_omni,
        "cosmos3_edge": _cosmos3_edge,
    }
    build_model, processor = builders[family]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = build_model().to(dtype=torch.float32)  # type: ignore[call-arg]
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


def _qwen3_vl() -> tuple[Callable[[], PreTrainedModel], ProcessorMixin]:
    processor = _qwen_processor()
    config = _qwen_config(transformers.Qwen3VLConfig, processor.tokenizer, {})
    return lambda: transformers.Qwen3VLForConditionalGeneration(config), processor


def _qwen3_vl_moe() -> tuple[Callable[[], PreTrainedModel], ProcessorMixin]:
    processor = _qwen_processor()
    config = _qwen_config(transformers.Qwen3VLMoeConfig, processor.tokenizer, QWEN_EXPERTS)
    return lambda: transformers.Qwen3VLMoeForConditionalGeneration(config), processor


def _qwen_config(config_class: Any, tokenizer: PreTrainedTokenizerFast, more_text: dict[str, Any]) -> Any:
    rope = {**ROPE, "mrope_interleaved": True}
    text = {**TEXT, **_text_ids(tokenizer), "num_hidden_layers": 3, "rope_parameters": rope, **more_text}
    return config_class(text_config=text, vision_config=QWEN_VISION, **_vision_ids(tokenizer))


def _text_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _vision_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


def _qwen_processor() -> ProcessorMixin:
    patches: dict[str, Any] = {
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": HALF,
        "image_std": HALF,
    }
    return transformers.Qwen3VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=transformers.Qwen2VLImageProcessor(size=IMAGE_SIZE, **patches),
        video_processor=transformers.Qwen3VLVideoProcessor(size=VIDEO_SIZE, **FRAMES, **patches),
        tokenizer=train_tokenizer(QWEN_TOKENS),
        chat_template=QWEN_TEMPLATE,
    )


def _cosmos3_edge() -> tuple[Callable[[], PreTrainedModel], ProcessorMixin]:
    patches: dict[str, Any] = {
        "patch_size": PATCH,
        "temporal_patch_size": 1,
        "merge_size": 2,
        "image_mean": HALF,
        "image_std": HALF,
    }
    processor = transformers.Cosmos3EdgeProcessor(  # type: ignore[no-untyped-call]
        image_processor=transformers.Cosmos3EdgeImageProcessor(size=IMAGE_SIZE, **patches),
        video_processor=transformers.Cosmos3EdgeVideoProcessor(size=VIDEO_SIZE, **FRAMES, **patches),
        tokenizer=train_tokenizer(QWEN_TOKENS),
        chat_template=QWEN_TEMPLATE,
    )
    tokenizer = processor.tokenizer
    config = transformers.Cosmos3EdgeConfig(
        text_config={**TEXT, **_text_ids(tokenizer), "num_hidden_layers": 3, "rope_parameters": ROPE},
        vision_config=EDGE_VISION,
        projector_hidden_size=128,
        **_vision_ids(tokenizer),
    )
    return lambda: transformers.Cosmos3EdgeForConditionalGeneration(config), processor


def _nemotron_h_omni() -> tuple[Callable[[], PreTrainedModel], ProcessorMixin]:
    processor = _omni_processor()
    tokenizer = processor.tokenizer
    config = configuration_nemotron_h_omni.NemotronH_Omni_Reasoning_V3_Config(
        text_config={**TEXT, **OMNI_TEXT, **_text_ids(tokenizer)},
        vision_config=OMNI_VISION,
        audio_config=None,
        vision_hidden_size=OMNI_VISION["hidden_size"],
        projector_hidden_size=64,
        downsample_ratio=0.5,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        audio_token_id=tokenizer.convert_tokens_to_ids("<so_embedding>"),
    )
    return lambda: modeling_nemotron_h_omni.NemotronH_Omni_Reasoning_V3(config), processor


def _omni_processor() -> ProcessorMixin:
    clip: dict[str, Any] = {"norm_mean": [0.48, 0.46, 0.41], "norm_std": [0.27, 0.26, 0.28]}
    patches: dict[str, Any] = {"patch_size": PATCH, "downsample_ratio": 0.5}
    return processing_nemotron_h_omni.NemotronH_Omni_Reasoning_V3Processor(
        image_processor=image_processing_nemotron_h_omni.NemotronH_Omni_Reasoning_V3ImageProcessor(
            min_num_patches=4, max_num_patches=36, max_model_len=MODEL_MAX_LENGTH, **clip, **patches
        ),
        video_processor=video_processing_nemotron_h_omni.NemotronH_Omni_Reasoning_V3VideoProcessor(
            video_target_num_patches=16, **clip, **patches
        ),
        tokenizer=train_tokenizer(OMNI_TOKENS),
        # The processor cannot be built without one, even where the model has no audio branch.
        feature_extractor=transformers.ParakeetFeatureExtractor(feature_size=16),  # type: ignore[no-untyped-call]
        chat_template=OMNI_TEMPLATE,
    )
