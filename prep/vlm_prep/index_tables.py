"""The three index tables of a part, row by row in source order; exactly the schemas of vlm_catalogs.tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.hashing import sample_key
from vlm_catalogs.tables import MEDIA, SAMPLES, TEXTS
from vlm_prep.built_sample import BuiltSample, media_hash, text_chars, text_hash
from vlm_prep.mds_shard import ClosedShard, ShardPosition
from vlm_prep.naming import short_name
from vlm_prep.raw_sample import Origin, RejectedSample

ROW_GROUP_ROWS = 1 << 16
"""Fixed, so that the same rows give the same bytes (semantics A5)."""


class IndexTables:
    """Collects the rows of one part."""

    def __init__(self, *, dataset: str, part: str) -> None:
        self._dataset = dataset
        self._part = part
        self._samples: list[dict[str, Any]] = []
        self._media: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []

    @property
    def num_kept(self) -> int:
        """Samples that stand in shards."""
        return len(self._texts)

    @property
    def num_rejected(self) -> int:
        """Samples that left by a named door."""
        return len(self._samples) - len(self._texts)

    def add_rejected(self, sample: RejectedSample) -> None:
        """Note a sample that is not stored."""
        row = self._origin_row(sample.origin, sample.source_id)
        self._samples.append(
            {**row, "status": "rejected", "reason": sample.rejected.reason, "detail": storable(sample.rejected.detail)}
        )

    def add_kept(self, sample: BuiltSample, position: ShardPosition) -> None:
        """Note a sample that stands in a shard."""
        keys = self._keys(sample.origin)
        self._samples.append({**self._origin_row(sample.origin, sample.source_id), **_kept_fields(sample, position)})
        self._media += [{**keys, **row} for row in _media_rows(sample)]
        self._texts.append({**keys, "messages": sample.messages_json, "alternatives": sample.alternatives_json})

    def write(self, folder: Path, shards: Sequence[ClosedShard]) -> None:
        """Write samples, media and texts.parquet, with the byte ranges of the closed shards."""
        for row in self._samples:
            if row["status"] == "kept":
                offsets, index = shards[row["shard"]].offsets, row["index_in_shard"]
                row["byte_begin"], row["byte_end"] = offsets[index], offsets[index + 1]
        write_table(pa.Table.from_pylist(self._samples, schema=SAMPLES), folder / "samples.parquet")
        write_table(pa.Table.from_pylist(self._media, schema=MEDIA), folder / "media.parquet")
        write_table(pa.Table.from_pylist(self._texts, schema=TEXTS), folder / "texts.parquet")

    def _keys(self, origin: Origin) -> dict[str, Any]:
        key = sample_key(self._dataset, origin.sample_id)
        return {"dataset": self._dataset, "sample_id": origin.sample_id, "sample_key": key}

    def _origin_row(self, origin: Origin, source_id: str | None) -> dict[str, Any]:
        return {
            **self._keys(origin),
            "source_id": source_id,
            "source_uri": origin.source_uri,
            "member": origin.member,
            "byte_offset": origin.byte_offset,
            "part": self._part,
        }


def _kept_fields(sample: BuiltSample, position: ShardPosition) -> dict[str, Any]:
    kinds = [medium.facts.kind for medium in sample.media]
    return {
        "status": "kept",
        "num_turns": len(sample.conversations[0]),
        "num_images": kinds.count("image"),
        "num_videos": kinds.count("video"),
        "num_alternatives": len(sample.conversations),
        "text_chars": text_chars(sample.conversations[0]),
        "text_hash": text_hash(sample.conversations),
        "media_hash": media_hash(sample.media),
        "shard": position.shard,
        "index_in_shard": position.index,
    }


def _media_rows(sample: BuiltSample) -> list[dict[str, Any]]:
    return [
        {
            "position": position,
            "name": medium.named.name,
            "source_name": short_name(medium.named.source_name),
            "kind": medium.facts.kind,
            "format": medium.facts.format,
            "bytes": medium.facts.size,
            "width": medium.facts.width,
            "height": medium.facts.height,
            "duration": medium.facts.duration,
            "fps": medium.facts.fps,
            "frames": medium.facts.frames,
            "mode": medium.header.mode,
            "orientation": medium.header.orientation,
            "animated": medium.header.animated,
            "referenced": medium.named.referenced,
            "xxh3_128": medium.facts.xxh3_128,
        }
        for position, medium in enumerate(sample.media)
    ]


def storable(text: str) -> str:
    """Text for a Parquet column: what is no UTF-8 (a lone surrogate) is shown escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table with fixed row groups: the same rows give the same bytes."""
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")
