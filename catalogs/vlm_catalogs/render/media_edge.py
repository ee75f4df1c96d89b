"""Media of Cosmos3-Edge: Qwen3-VL's arithmetic, one frame a temporal patch; plans are reproduced as in media_qwen."""

import re
from collections.abc import Mapping
from typing import Any

from vlm_catalogs.render.media_qwen import GridPlanner, frame_rules, pixel_rules
from vlm_catalogs.render.planner import MediaTokens

IMAGE_DEFAULTS = {
    "size": {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096},
    "patch_size": 16,
    "temporal_patch_size": 1,
    "merge_size": 2,
}
"""Class attributes of ``Cosmos3EdgeImageProcessor``, transformers 5.23."""
VIDEO_DEFAULTS = {
    "size": {"shortest_edge": 64 * 64, "longest_edge": 24 * 1024 * 1024},
    "patch_size": 16,
    "temporal_patch_size": 1,
    "merge_size": 2,
    "min_frames": 4,
    "max_frames": 768,
}
"""Class attributes of ``Cosmos3EdgeVideoProcessor``, transformers 5.23."""


def edge_planner(image: Mapping[str, Any], video: Mapping[str, Any], tokens: MediaTokens) -> GridPlanner:
    """The planner of cosmos3_edge; a video's frames replace the template's whole wrapper, as in its processor."""
    wrapper = tokens.start + tokens.video + tokens.end
    return GridPlanner(
        tokens=tokens,
        video_pattern=f"{re.escape(wrapper)}|{re.escape(tokens.video)}",
        image=pixel_rules(image, IMAGE_DEFAULTS),
        video=pixel_rules(video, VIDEO_DEFAULTS),
        frames=frame_rules(video, VIDEO_DEFAULTS),
        images_are_clips=True,
    )
