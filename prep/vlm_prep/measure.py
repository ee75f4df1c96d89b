"""The lengths of a part: every conversation rendered once, from the index tables alone, without reading a shard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_catalogs import json_text, tables
from vlm_catalogs.errors import DataError
from vlm_catalogs.render import Renderer, RenderProblem
from vlm_catalogs.sample import MediaFacts

COUNTS = (
    "text_tokens",
    "image_tokens",
    "video_tokens",
    "total_tokens",
    "full_tokens",
    "supervised_tokens",
    "vision_patches",
)
MEDIA_COLUMNS = (
    "sample_key",
    "position",
    "name",
    "kind",
    "format",
    "bytes",
    "width",
    "height",
    "duration",
    "fps",
    "frames",
    "xxh3_128",
)


def measure_part(folder: Path, renderer: Renderer) -> pa.Table:
    """A row of ``tables.LENGTHS`` per kept sample and alternative, samples in the order of samples.parquet.

    What cannot be rendered has zeros and its reason in ``problem``. Raises DataError when the tables
    do not fit together.
    """
    samples = pq.read_table(folder / "samples.parquet", columns=["sample_key", "status"])
    kept = samples.filter(pc.equal(samples["status"], "kept"))["sample_key"].to_pylist()
    conversations = _conversations(folder)
    media = _media_facts(folder)
    rows: list[dict[str, Any]] = []
    for key in kept:
        if key not in conversations:
            raise DataError(f"{folder / 'texts.parquet'}: no messages for the kept sample with key {key}")
        for alternative, messages in enumerate(_alternatives(*conversations[key])):
            measured = measure_conversation(messages, media.get(key, []), renderer)
            rows.append({"sample_key": key, "alternative": alternative, **measured})
    return pa.Table.from_pylist(rows, schema=tables.LENGTHS)


def measure_conversation(
    messages: list[dict[str, Any]], media: list[MediaFacts], renderer: Renderer
) -> dict[str, int | str | None]:
    """The counts of one conversation, as the columns of ``tables.LENGTHS``."""
    try:
        rendered = renderer.render(messages, media)
    except RenderProblem as problem:
        counts = dict.fromkeys(COUNTS, 0)
        return {**counts, "problem": f"{problem.reason}: {problem.detail}"}
    return {**{name: getattr(rendered, name) for name in COUNTS}, "problem": None}


def _conversations(folder: Path) -> dict[int, tuple[str, str]]:
    table = pq.read_table(folder / "texts.parquet", columns=["sample_key", "messages", "alternatives"])
    columns = [table[name].to_pylist() for name in ("sample_key", "messages", "alternatives")]
    return {key: (messages, alternatives) for key, messages, alternatives in zip(*columns, strict=True)}


def _alternatives(messages: str, alternatives: str) -> Iterator[list[dict[str, Any]]]:
    """Every conversation of a sample: alternative 0 is ``messages``."""
    yield json_text.loads(messages)
    yield from json_text.loads(alternatives)


def _media_facts(folder: Path) -> dict[int, list[MediaFacts]]:
    """Sample key -> its media in order. Offsets are 0: rendering does not open media."""
    found: dict[int, list[MediaFacts]] = {}
    for row in pq.read_table(folder / "media.parquet", columns=list(MEDIA_COLUMNS)).to_pylist():
        facts = MediaFacts(
            offset=0,
            size=row["bytes"],
            **{name: row[name] for name in MEDIA_COLUMNS if name not in ("sample_key", "position", "bytes")},
        )
        found.setdefault(row["sample_key"], []).append(facts)
    return found
