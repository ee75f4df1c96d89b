"""Which samples the report of a mix shows, and what of each: a seeded choice of bounded size, the audit's first."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from vlm_catalogs import json_text
from vlm_catalogs.hashing import joined_hash
from vlm_catalogs.page import embedded
from vlm_prep.reasons import meaning_of
from vlm_prep.report.thumbnails import Place
from vlm_prep.sql import read_sql

LEAST_OF_EACH = 5
"""So many samples of every door of every dataset are shown, where there are as many."""
MOST_MEDIA = 8
"""Media of one sample whose facts are shown."""
MOST_CHARACTERS = 2_000
"""So much of one message is shown."""
MOST_MESSAGES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The samples of a page."""

    rows: list[dict[str, Any]]
    """What the page shows of each, in order."""
    places: list[Place]
    """Where each stands in the shards; no shard holds a rejected one."""
    num_samples: int
    """Samples that there are in all, kept or rejected."""


def choose_samples(
    index: duckdb.DuckDBPyConnection, wanted: Sequence[tuple[str, str]], *, most: int, most_bytes: int, seed: int
) -> Chosen:
    """At most ``most`` samples whose texts take at most ``most_bytes``: ``wanted`` first, then by the seed."""
    names = pa.table({"dataset": [d for d, _ in wanted], "sample_id": [s for _, s in wanted]}, schema=NAMES)
    index.register("wanted", names)
    salt = int(joined_hash(["report", str(seed)])[:16], 16)
    index.execute(read_sql("report_chosen.sql"), {"most": most, "least": LEAST_OF_EACH, "salt": salt})
    found = index.sql(read_sql("report_samples.sql"), params={"most_media": MOST_MEDIA}).to_arrow_table().to_pylist()
    (total,) = index.execute("select count(*) from samples").fetchone() or (0,)
    rows: list[dict[str, Any]] = []
    places: list[Place] = []
    for row, shown in _within(found, most_bytes):
        rows.append(shown)
        places.append(Place((row["dataset"], row["part"]), row["shard"], row["index_in_shard"]))
    return Chosen(rows=rows, places=places, num_samples=total)


NAMES = pa.schema([("dataset", pa.string()), ("sample_id", pa.string())])


def _within(found: Iterable[dict[str, Any]], most_bytes: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The rows with what is shown of them, until that takes ``most_bytes``."""
    taken = 0
    for row in found:
        shown = _shown(row)
        taken += len(embedded(shown))
        if taken > most_bytes:
            return
        yield row, shown


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    media = [{key: value for key, value in medium.items() if value is not None} for medium in row["media"]]
    names = {medium["name"]: place for place, medium in enumerate(media)}
    numbers = ("num_images", "num_videos", "num_alternatives", "total_tokens", "supervised_tokens", "num_turns")
    origin = ("source_uri", "member", "byte_offset", "part", "shard", "index_in_shard")
    return {
        "dataset": row["dataset"],
        "id": row["sample_id"],
        "state": row["state"],
        "reason": row["reason"],
        "meaning": None if row["reason"] is None else meaning_of(row["reason"]),
        "detail": None if row["detail"] is None else cut(row["detail"]),
        **{name: row[name] for name in (*numbers, *origin)},
        "media": media,
        "turns": [] if row["messages"] is None else _turns(json_text.loads(row["messages"]), names),
    }


def _turns(messages: list[dict[str, Any]], names: dict[str, int]) -> list[list[Any]]:
    """[role, part, ...]: a part is a text, the place of a medium in the sample's media, or [thought]."""
    turns = [[message["role"], *_parts(message, names)] for message in messages[:MOST_MESSAGES]]
    more = len(messages) - len(turns)
    return [*turns, *([["", f"and {more:,} more messages"]] if more > 0 else [])]


def _parts(message: dict[str, Any], names: dict[str, int]) -> Iterator[Any]:
    thought = message.get("reasoning_content")
    if isinstance(thought, str):
        yield [cut(thought)]
    for item in message["content"]:
        if item["type"] == "text":
            yield cut(item["text"])
        else:
            name = item[item["type"]]
            yield names.get(name, f"<{name}>")


def cut(text: str) -> str:
    """The text, without what is beyond the first characters."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}… ({len(text):,} characters)"
