"""The renderer as a whole: what its fingerprint covers, and that it needs neither torch nor the order of media."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.render import Renderer
from vlm_catalogs.sample import MediaFacts


def test_neither_loading_nor_rendering_imports_torch(family: str, tiny: Callable[[str], Path]) -> None:
    code = f"""
import sys
from vlm_catalogs.render import RenderSettings, load_renderer
from vlm_catalogs.sample import MediaFacts
renderer = load_renderer({str(tiny(family))!r}, settings=RenderSettings(profile="i4", model_max_length=512))
common = dict(offset=0, size=1, xxh3_128="", width=64, height=48)
media = [MediaFacts(name="image_0", kind="image", format="png", **common),
         MediaFacts(name="video_0", kind="video", format="mp4", duration=2.0, fps=8.0, frames=16, **common)]
asked = [{{"type": "image", "image": "image_0"}}, {{"type": "video", "video": "video_0"}}]
rendered = renderer.render([{{"role": "user", "content": asked}}, {{"role": "assistant", "content": "!"}}], media)
assert rendered.image_tokens and rendered.video_tokens
print(sorted(set(sys.modules) & {{"torch", "torchvision", "av", "PIL.Image"}}))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in json.loads(told.stdout.replace("'", '"'))


def test_the_fingerprint_is_the_same_for_the_same_files(family: str, renderer_of: Callable[..., Renderer]) -> None:
    assert renderer_of(family).fingerprint == renderer_of(family).fingerprint


@pytest.mark.parametrize(
    "changed", [{"profile": "i4"}, {"model_max_length": 2048}, {"system_prompt": ""}, {"system_prompt": "Be brief."}]
)
def test_every_setting_changes_the_fingerprint(
    family: str, changed: dict[str, Any], renderer_of: Callable[..., Renderer]
) -> None:
    assert renderer_of(family, **changed).fingerprint != renderer_of(family).fingerprint


def test_the_same_checkpoint_elsewhere_has_the_same_fingerprint(
    renderer_of: Callable[..., Renderer], copy_with: Callable[..., Renderer]
) -> None:
    assert copy_with("qwen3_vl").fingerprint == renderer_of("qwen3_vl").fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"chat_template": "TEMPLATE{# a remark #}"},
        {"tokenizer": {"truncation": {"max_length": 9, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}}},
        {"tokenizer_config": {"bos_token": "<|endoftext|>"}},
        {
            "processor_config": {
                "image_processor": {"patch_size": 16, "size": {"shortest_edge": 1, "longest_edge": 9999}}
            }
        },
    ],
)
def test_every_file_changes_the_fingerprint(
    change: dict[str, Any],
    tiny: Callable[[str], Path],
    renderer_of: Callable[..., Renderer],
    copy_with: Callable[..., Renderer],
) -> None:
    if "chat_template" in change:
        template = (tiny("qwen3_vl") / "chat_template.jinja").read_text()
        change = {"chat_template": change["chat_template"].replace("TEMPLATE", template)}
    assert copy_with("qwen3_vl", **change).fingerprint != renderer_of("qwen3_vl").fingerprint


def test_a_changed_normalisation_changes_the_fingerprint_too(
    tiny: Callable[[str], Path], renderer_of: Callable[..., Renderer], copy_with: Callable[..., Renderer]
) -> None:
    """It moves no token, but a model trained with it is another."""
    image = json.loads((tiny("qwen3_vl") / "processor_config.json").read_text())["image_processor"]
    changed = copy_with("qwen3_vl", processor_config={"image_processor": {**image, "image_mean": [0.1, 0.2, 0.3]}})
    assert changed.fingerprint != renderer_of("qwen3_vl").fingerprint


@pytest.mark.parametrize(("said", "most_tokens"), [({}, 2 * 768), ({"cap_pixels_per_frame": False}, 2 * 900)])
def test_a_short_clip_costs_at_most_768_tokens_a_frame_unless_the_checkpoint_says_no(
    said: dict[str, Any], most_tokens: int, copy_with: Callable[..., Renderer], video: Callable[..., MediaFacts]
) -> None:
    size = {"shortest_edge": 4096, "longest_edge": 24 * 1024 * 1024}
    processor = {"size": size, "patch_size": 16, "min_frames": 4, **said}
    renderer = copy_with("qwen3_vl", processor_config={"video_processor": processor}, model_max_length=100_000)
    items: list[dict[str, Any]] = [{"type": "video", "video": "video_0"}]
    messages = [{"role": "user", "content": items}, {"role": "assistant", "content": "!"}]
    clip = video("video_0", 960, 960, frames=4, fps=8.0)
    tokens = renderer.render(messages, [clip]).video_tokens
    assert 0.9 * most_tokens < tokens <= most_tokens


def test_the_description_is_json_and_names_no_path(
    family: str, tiny: Callable[[str], Path], renderer_of: Callable[..., Renderer]
) -> None:
    text = json.dumps(renderer_of(family).description)
    assert str(tiny(family).parent) not in text
    assert json.loads(text)["model_type"] == family


def test_the_order_of_media_facts_does_not_matter(
    family: str, renderer_of: Callable[..., Renderer], image: Callable[..., MediaFacts]
) -> None:
    media = [image("image_0", 97, 61), image("image_1", 33, 90)]
    items: list[dict[str, Any]] = [{"type": "image", "image": name} for name in ("image_1", "image_0", "image_1")]
    messages = [{"role": "user", "content": items}, {"role": "assistant", "content": "!"}]
    renderer = renderer_of(family)
    forward, backward = renderer.render(messages, media), renderer.render(messages, media[::-1])
    assert [plan.name for plan in forward.media] == ["image_1", "image_0", "image_1"]
    assert forward.media == backward.media
    assert forward.input_ids_T.tolist() == backward.input_ids_T.tolist()


def test_counts_of_a_rendered_conversation_add_up(
    family: str,
    renderer_of: Callable[..., Renderer],
    image: Callable[..., MediaFacts],
    video: Callable[..., MediaFacts],
) -> None:
    media = [image("image_0", 97, 61), video("video_0", 120, 67, frames=31, fps=10.0)]
    items: list[dict[str, Any]] = [{"type": "image", "image": "image_0"}, {"type": "video", "video": "video_0"}]
    renderer = renderer_of(family)
    rendered = renderer.render([{"role": "user", "content": items}, {"role": "assistant", "content": "!"}], media)
    still, clip = rendered.media
    assert (rendered.image_tokens, rendered.video_tokens) == (still.num_tokens, clip.num_tokens)
    ids = rendered.input_ids_T.tolist()
    if renderer.token_ids.image == renderer.token_ids.video:
        assert ids.count(renderer.token_ids.image) == still.num_tokens + clip.num_tokens
    else:
        assert ids.count(renderer.token_ids.image) == still.num_tokens
        assert ids.count(renderer.token_ids.video) == clip.num_tokens
    for plan in rendered.media:
        assert plan.num_patches == plan.grid[0] * plan.grid[1] * plan.grid[2]
        assert (plan.height, plan.width) == (plan.grid[1] * 16, plan.grid[2] * 16)
        assert plan.num_tokens * 4 == plan.num_patches
