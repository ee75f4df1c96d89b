"""The three index tables of a part, row by row in source order; exactly the schemas of vlm_catalogs.tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.hashing import order_keys
from vlm_catalogs.tables import MEDIA, SAMPLES, TEXTS
from vlm_prep.built_sample import BuiltMedium, BuiltSample, media_hash
from vlm_prep.mds_shard import ClosedShard, ShardPosition
from vlm_prep.naming import short_name
from vlm_prep.raw_sample import RejectedSample

ROW_GROUP_ROWS = 1 << 16
"""Fixed, so that the same rows give the same bytes (semantics A5)."""

Row = tuple[str | int | float | bool | None, ...]
"""One row of a table, without what is the same for the whole part or known only when its shards are closed: a plain
tuple, because a dict for each row costs more than reading the sample's headers does."""

FILLED_FIELDS = ("dataset", "sample_key", "part", "byte_begin", "byte_end")
SAMPLE_FIELDS, MEDIA_FIELDS, TEXT_FIELDS = (
    tuple(name for name in schema.names if name not in FILLED_FIELDS) for schema in (SAMPLES, MEDIA, TEXTS)
)
"""The columns of the rows, in the order of the schemas."""
NOTHING_KEPT: Row = (None,) * (len(SAMPLE_FIELDS) - SAMPLE_FIELDS.index("num_turns"))


class IndexTables:
    """Collects the rows of one part."""

    def __init__(self, *, dataset: str, part: str) -> None:
        self._dataset = dataset
        self._part = part
        self._samples: list[Row] = []
        self._media: list[Row] = []
        self._texts: list[Row] = []
        self.num_out_of_order = 0
        """Samples whose members stand in another order in one tar than in another."""

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
        origin, detail = sample.origin, storable(sample.rejected.detail)
        self.num_out_of_order += origin.out_of_order
        place = (origin.sample_id, sample.source_id, origin.source_uri, origin.member, origin.byte_offset)
        self._samples.append((*place, "rejected", sample.rejected.reason, detail, *NOTHING_KEPT))

    def add_kept(self, sample: BuiltSample, position: ShardPosition) -> None:
        """Note a sample that stands in a shard."""
        origin, texts, media = sample.origin, sample.texts, sample.media
        self.num_out_of_order += origin.out_of_order
        kinds = [medium.header.kind for medium in media]
        self._samples.append(
            (
                origin.sample_id,
                sample.source_id,
                origin.source_uri,
                origin.member,
                origin.byte_offset,
                "kept",
                None,
                None,
                texts.num_turns,
                kinds.count("image"),
                kinds.count("video"),
                texts.num_conversations,
                texts.text_chars,
                texts.text_hash,
                media_hash(media),
                position.shard,
                position.index,
            )
        )
        self._media += [_media_row(origin.sample_id, number, medium) for number, medium in enumerate(media)]
        self._texts.append((origin.sample_id, texts.messages_json, texts.alternatives_json))

    def write(self, folder: Path, shards: Sequence[ClosedShard]) -> None:
        """Write samples, media and texts.parquet, with the byte ranges of the closed shards."""
        samples = _columns(SAMPLE_FIELDS, self._samples)
        places = list(zip(samples["shard"], samples["index_in_shard"], strict=True))
        for name, end in (("byte_begin", 0), ("byte_end", 1)):
            samples[name] = [None if shard is None else shards[shard].offsets[index + end] for shard, index in places]
        ids = samples["sample_id"]
        keys = dict(zip(ids, order_keys([self._dataset], ids), strict=True))
        self._write(samples, keys, SAMPLES, folder / "samples.parquet")
        self._write(_columns(MEDIA_FIELDS, self._media), keys, MEDIA, folder / "media.parquet")
        self._write(_columns(TEXT_FIELDS, self._texts), keys, TEXTS, folder / "texts.parquet")

    def _write(self, columns: dict[str, Sequence[Any]], keys: dict[str, int], schema: pa.Schema, path: Path) -> None:
        ids = columns["sample_id"]
        columns["sample_key"] = [keys[sample_id] for sample_id in ids]
        same = {"dataset": self._dataset, "part": self._part}
        arrays = [
            pa.repeat(same[field.name], len(ids)) if field.name in same else pa.array(columns[field.name], field.type)
            for field in schema
        ]
        write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def _columns(names: Sequence[str], rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    return dict(zip(names, zip(*rows, strict=True) if rows else ((),) * len(names), strict=True))


def _media_row(sample_id: str, number: int, medium: BuiltMedium) -> Row:
    header = medium.header
    return (
        sample_id,
        number,
        medium.name,
        short_name(medium.source_name),
        header.kind,
        header.format,
        len(medium.content),
        header.width,
        header.height,
        header.duration,
        header.fps,
        header.frames,
        header.mode,
        header.orientation,
        header.animated,
        medium.referenced,
        medium.xxh3_128,
    )


def storable(text: str) -> str:
    """Text for a Parquet column: what is no UTF-8 (a lone surrogate) is shown escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table with fixed row groups: the same rows give the same bytes."""
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, compression="zstd")
