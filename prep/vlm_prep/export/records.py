"""A stored sample as a record of its own: messages whose media items lead to files."""

import re
from collections.abc import Callable
from typing import Any

from vlm_catalogs.sample import MediaFacts, Sample
from vlm_prep.columns import STRUCTURE_KEYS

SUFFIXES = {"jpeg": "jpg", "tiff": "tif", "matroska": "mkv"}


def record_of(sample: Sample, locate: Callable[[str, str], dict[str, str]]) -> dict[str, Any]:
    """The record: id (the source's own, else ours), messages (lists of them where there are alternatives), the rest.

    ``locate``: (kind, name of a medium) -> the keys that say in an item where it is.
    """
    conversations = [sample.messages, *sample.alternatives]
    located = [[_located(message, locate) for message in conversation] for conversation in conversations]
    others = {key: value for key, value in sample.meta.items() if key not in STRUCTURE_KEYS}
    return {
        "id": sample.meta.get("id", sample.sample_id),
        "messages": located if sample.alternatives else located[0],
        **others,
    }


def _located(message: dict[str, Any], locate: Callable[[str, str], dict[str, str]]) -> dict[str, Any]:
    return {**message, "content": [_located_item(item, locate) for item in message["content"]]}


def _located_item(item: dict[str, Any], locate: Callable[[str, str], dict[str, str]]) -> dict[str, Any]:
    kind = item["type"]
    if kind not in ("image", "video"):
        return item
    options = {key: value for key, value in item.items() if key not in ("type", kind)}
    return {"type": kind, **locate(kind, item[kind]), **options}


def file_suffix(facts: MediaFacts, position: int) -> str:
    """The end of a medium's file name: sorted by name, the files of a sample stand in the order of its table."""
    ending = SUFFIXES.get(facts.format, re.sub(r"[^a-z0-9]", "", facts.format))
    return f"{position:04d}_{facts.name}.{ending}"


def used_names(sample: Sample) -> set[str]:
    """The media that any conversation of the sample uses."""
    conversations = [sample.messages, *sample.alternatives]
    items = [item for conversation in conversations for message in conversation for item in message["content"]]
    return {item[item["type"]] for item in items if item["type"] in ("image", "video")}
