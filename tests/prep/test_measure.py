"""Measured lengths equal what rendering gives, sample by sample, from the index tables alone."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_catalogs import json_text, tables
from vlm_catalogs.errors import DataError
from vlm_catalogs.render import Renderer, RenderSettings, load_renderer
from vlm_catalogs.sample import MediaFacts
from vlm_prep.measure import measure_part
from vlm_train.make_tiny import make_tiny


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("tiny") / "qwen3_vl"
    make_tiny("qwen3_vl", folder)
    return load_renderer(str(folder), settings=RenderSettings(profile="normal", model_max_length=512))


def conversation(*items: dict[str, Any], answer: str = "Yes.") -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [*items, {"type": "text", "text": "Is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


IMAGE = {"type": "image", "image": "image_0"}
VIDEO = {"type": "video", "video": "video_0"}
MESSAGES = {
    30: [conversation()],
    10: [conversation(IMAGE), conversation(answer="No, never."), conversation(IMAGE, IMAGE)],
    20: [conversation(VIDEO)],
    40: [conversation({"type": "image", "image": "image_9"})],
}
"""Sample key -> its conversations, in the order of samples.parquet."""


def media_row(key: int, position: int, kind: str, **more: Any) -> dict[str, Any]:
    facts = {"bytes": 9, "width": 90, "height": 50, "xxh3_128": "0" * 32, "format": "x", "kind": kind}
    return {"sample_key": key, "position": position, "name": f"{kind}_0", **facts, **more}


MEDIA = [media_row(10, 0, "image"), media_row(20, 0, "video", fps=5.0, frames=40, duration=8.0)]


@pytest.fixture
def part(tmp_path: Path) -> Path:
    samples = [{"sample_key": key, "status": "kept"} for key in MESSAGES]
    samples.insert(1, {"sample_key": 99, "status": "rejected"})
    texts = [
        {"sample_key": key, "messages": json_text.dumps(first), "alternatives": json_text.dumps(rest)}
        for key, (first, *rest) in MESSAGES.items()
    ]
    pq.write_table(pa.Table.from_pylist(samples, schema=tables.SAMPLES), tmp_path / "samples.parquet")
    pq.write_table(pa.Table.from_pylist(texts[::-1], schema=tables.TEXTS), tmp_path / "texts.parquet")
    pq.write_table(pa.Table.from_pylist(MEDIA, schema=tables.MEDIA), tmp_path / "media.parquet")
    return tmp_path


def test_there_is_a_row_per_kept_sample_and_alternative_in_order(part: Path, renderer: Renderer) -> None:
    table = measure_part(part, renderer)
    assert table.schema == tables.LENGTHS
    rows = [(row["sample_key"], row["alternative"]) for row in table.to_pylist()]
    assert rows == [(30, 0), (10, 0), (10, 1), (10, 2), (20, 0), (40, 0)]


def test_measured_lengths_equal_rendered_ones(part: Path, renderer: Renderer) -> None:
    common: dict[str, Any] = {"offset": 0, "size": 9, "xxh3_128": "0" * 32, "format": "x", "width": 90, "height": 50}
    image = MediaFacts(name="image_0", kind="image", **common)
    video = MediaFacts(name="video_0", kind="video", fps=5.0, frames=40, duration=8.0, **common)
    for row in measure_part(part, renderer).to_pylist():
        if row["sample_key"] == 40:
            continue
        rendered = renderer.render(MESSAGES[row["sample_key"]][row["alternative"]], [image, video])
        assert row["total_tokens"] == len(rendered.input_ids_T)
        assert row["supervised_tokens"] == (rendered.labels_T >= 0).sum()
        assert row["vision_patches"] == sum(plan.num_patches for plan in rendered.media)
        assert row["text_tokens"] + row["image_tokens"] + row["video_tokens"] == row["total_tokens"]
        assert row["problem"] is None


def test_what_cannot_be_rendered_has_zeros_and_a_reason(part: Path, renderer: Renderer) -> None:
    row = measure_part(part, renderer).to_pylist()[-1]
    assert row["problem"].startswith("placeholder_media_mismatch: image 'image_9'")
    assert {row[name] for name in ("text_tokens", "total_tokens", "supervised_tokens", "vision_patches")} == {0}


def test_a_part_measured_twice_gives_the_same_table(part: Path, renderer: Renderer) -> None:
    assert measure_part(part, renderer).equals(measure_part(part, renderer))


def test_a_kept_sample_without_messages_is_damaged_data(part: Path, renderer: Renderer) -> None:
    texts = pq.read_table(part / "texts.parquet")
    pq.write_table(texts.slice(1), part / "texts.parquet")
    with pytest.raises(DataError, match=r"texts.parquet: no messages for the kept sample with key"):
        measure_part(part, renderer)
