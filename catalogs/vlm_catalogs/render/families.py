"""The model families that can be rendered, by ``model_type``, and the marks that their processors give to media."""

from typing import Any

from vlm_catalogs.render.checkpoint_files import CheckpointFiles
from vlm_catalogs.render.media_edge import edge_planner
from vlm_catalogs.render.media_omni import omni_planner
from vlm_catalogs.render.media_qwen import qwen_planner
from vlm_catalogs.render.planner import MediaPlanner, MediaTokens

OMNI = "nemotron_h_omni"
EDGE = "cosmos3_edge"
QWEN = ("qwen3_vl", "qwen3_vl_moe")
MODEL_TYPES = (*QWEN, OMNI, EDGE)


def media_planner(files: CheckpointFiles) -> MediaPlanner:
    """The media side of the checkpoint's family, with the numbers of its processor files."""
    image, video, tokens = files.image_processor, files.video_processor, _media_tokens(files)
    if files.model_type == OMNI:
        return omni_planner(image, video, files.processor, tokens)
    return (edge_planner if files.model_type == EDGE else qwen_planner)(image, video, tokens)


def _media_tokens(files: CheckpointFiles) -> MediaTokens:
    """The processor's own choice: the tokenizer's named tokens, else the names that its class has built in."""
    config = files.tokenizer_config
    named = {
        **_object(config.get("model_specific_special_tokens")),
        **_object(config.get("extra_special_tokens")),
        **config,
    }

    def token(name: str, default: str) -> str:
        value = named.get(name)
        return value if isinstance(value, str) else default

    if files.model_type == OMNI:
        image = token("image_token", "<image>")
        return MediaTokens(
            image=image,
            video=token("video_token", "<video>"),
            start=token("image_start_token", "<img>"),
            end=token("image_end_token", "</img>"),
            video_features=image,
            others=("<so_start>", "<so_end>", token("audio_token", "<so_embedding>")),
        )
    video = token("video_token", "<|video_pad|>")
    return MediaTokens(
        image=token("image_token", "<|image_pad|>"),
        video=video,
        start=token("vision_start_token", "<|vision_start|>"),
        end=token("vision_end_token", "<|vision_end|>"),
        video_features=video,
        others=("<|vision_pad|>",),
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
