"""Which of a record's keys hold the conversation and the media: the usual names, or those that the TOML maps."""

from collections.abc import Mapping
from typing import Any

from vlm_prep.conversation import CONVERSATION_KEYS, LIST_KEYS

SLOTS = (CONVERSATION_KEYS, *LIST_KEYS.values(), ("id",))
"""Names of one meaning; mapping one of them displaces the others."""
MEDIA_KEYS = {key for keys in LIST_KEYS.values() for key in keys}
STRUCTURE_KEYS = {key for keys in SLOTS for key in keys}


def renamed(record: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The record under the usual names; what a mapped column displaces is left out."""
    if not columns:
        return record
    displaced = {name for slot in SLOTS if not columns.keys().isdisjoint(slot) for name in slot}
    taken = set(columns.values())
    mapped = {name: record[column] for name, column in columns.items() if column in record}
    return {**mapped, **{key: value for key, value in record.items() if key not in displaced | taken}}
