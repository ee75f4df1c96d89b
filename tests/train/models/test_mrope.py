"""M-RoPE positions equal those of transformers, over random conversations."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from vlm_train.make_tiny import make_tiny
from vlm_train.models.mrope import mrope_positions_3T

TEXT, IMAGE, VIDEO = 0, 1, 2


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_vl_moe", "cosmos3_edge"])
def test_positions_equal_get_rope_index(family: str, tmp_path: Path) -> None:
    make_tiny(family, tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model").model
    rng = random.Random(0)
    for _ in range(30):
        kinds_T, grids = random_conversation(rng)
        images = [grid for kind, grid in grids if kind == IMAGE]
        videos = [grid for kind, grid in grids if kind == VIDEO]
        expected, _ = model.get_rope_index(
            torch.zeros_like(kinds_T)[None],
            kinds_T[None],
            image_grid_thw=torch.tensor(images) if images else None,
            video_grid_thw=torch.tensor(videos) if videos else None,
        )
        ours = mrope_positions_3T(kinds_T > 0, [grid for _, grid in grids], merge_size=2)
        assert torch.equal(ours, expected[:, 0])


def random_conversation(rng: random.Random) -> tuple[torch.Tensor, list]:
    kinds, grids = [TEXT] * rng.randint(0, 5), []
    for _ in range(rng.randint(0, 4)):
        kind = rng.choice((IMAGE, VIDEO))
        frames = 1 if kind == IMAGE else rng.randint(1, 4)
        height, width = 2 * rng.randint(1, 4), 2 * rng.randint(1, 4)
        grids.append((kind, (frames, height, width)))
        for _ in range(frames):  # text stands between the frames of a video, and after each medium
            kinds += [kind] * (height * width // 4) + [TEXT] * rng.randint(1, 6)
    return torch.tensor([*kinds, TEXT]), grids
