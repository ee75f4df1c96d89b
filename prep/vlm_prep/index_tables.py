"""The three index tables of a part, row by row in source order; exactly the schemas of vlm_catalogs.tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlm_catalogs.hashing import joined_hashes, sample_keys
from vlm_catalogs.tables import MEDIA, SAMPLES, TEXTS
from vlm_prep.built_sample import BuiltMedium, BuiltSample, media_hash
from vlm_prep.mds_shard import ShardPosition
from vlm_prep.naming import short_name
from vlm_prep.plain_run import IMAGE_NAME, PlainRun
from vlm_prep.raw_sample import RejectedSample
from vlm_prep.row_groups import Row, RowGroups, TableFile

BYTE_RANGE = ("byte_begin", "byte_end")
"""What the rows of samples get when the shards are closed."""
OPEN_SAMPLES = pa.schema([field for field in SAMPLES if field.name not in BYTE_RANGE])
NOTHING_KEPT: Row = (None,) * (len(OPEN_SAMPLES) - OPEN_SAMPLES.names.index("num_turns") - len(("part",)))


class IndexTables:
    """Collects the rows of one part and writes them into ``folder``; media and texts leave memory by row groups."""

    def __init__(self, folder: Path, *, dataset: str, part: str) -> None:
        same = {"dataset": dataset, "part": part}
        self._samples, self._media, self._texts = (
            RowGroups(schema, same=same) for schema in (OPEN_SAMPLES, MEDIA, TEXTS)
        )
        self._sample_groups: list[pa.Table] = []
        self._samples_path = folder / "samples.parquet"
        self._media_file = TableFile(folder / "media.parquet", MEDIA)
        self._texts_file = TableFile(folder / "texts.parquet", TEXTS)
        self._key_of = sample_keys(dataset)
        self.num_kept = 0
        """Samples that stand in shards."""
        self.num_rejected = 0
        """Samples that left by a named door."""
        self.num_out_of_order = 0
        """Samples whose members stand in another order in one tar than in another."""

    def add_rejected(self, sample: RejectedSample) -> None:
        """Note a sample that is not stored."""
        origin, detail = sample.origin, storable(sample.rejected.detail)
        self.num_rejected += 1
        self.num_out_of_order += origin.out_of_order
        key = self._key_of(origin.sample_id)
        place = (origin.sample_id, key, sample.source_id, origin.source_uri, origin.member, origin.byte_offset)
        self._samples.add([(*place, "rejected", sample.rejected.reason, detail, *NOTHING_KEPT)])
        self._sample_groups += self._samples.take_full()

    def add_kept(self, sample: BuiltSample, position: ShardPosition) -> None:
        """Note a sample that stands in a shard."""
        origin, texts, media = sample.origin, sample.texts, sample.media
        self.num_kept += 1
        self.num_out_of_order += origin.out_of_order
        key = self._key_of(origin.sample_id)
        num_images = sum([medium.header.kind == "image" for medium in media])
        self._samples.add(
            [
                (
                    origin.sample_id,
                    key,
                    sample.source_id,
                    origin.source_uri,
                    origin.member,
                    origin.byte_offset,
                    "kept",
                    None,
                    None,
                    texts.num_turns,
                    num_images,
                    len(media) - num_images,
                    texts.num_conversations,
                    texts.text_chars,
                    texts.text_hash,
                    media_hash(media),
                    position.shard,
                    position.index,
                )
            ]
        )
        self._media.add([_media_row(origin.sample_id, key, number, medium) for number, medium in enumerate(media)])
        self._texts.add([(origin.sample_id, key, texts.messages_json, texts.alternatives_json)])
        self._texts.num_bytes += len(texts.messages_json) + len(texts.alternatives_json)
        if self._samples.is_full or self._media.is_full or self._texts.is_full:
            self._sample_groups += self._samples.take_full()
            self._media_file.write(self._media.take_full())
            self._texts_file.write(self._texts.take_full())

    def add_run(self, run: PlainRun, positions: Sequence[ShardPosition]) -> None:
        """``add_kept`` of every sample of a run."""
        num = len(run)
        self.num_kept += num
        ids = pa.array(run.sample_ids, pa.string())
        keys = pa.array([self._key_of(sample_id) for sample_id in run.sample_ids], pa.uint64())
        same = {"sample_id": ids, "sample_key": keys}
        self._sample_groups += self._samples.add_columns(
            num,
            {
                **same,
                "source_uri": run.source_uri,
                "member": run.members,
                "byte_offset": run.byte_offsets,
                "status": "kept",
                "num_turns": run.num_turns,
                "num_images": 1,
                "num_videos": 0,
                "num_alternatives": 1,
                "text_chars": run.text_chars,
                "text_hash": run.text_hashes,
                "media_hash": joined_hashes(run.hashes),
                "shard": [position.shard for position in positions],
                "index_in_shard": [position.index for position in positions],
            },
        )
        media = self._media.add_columns(
            num,
            {
                **same,
                "position": 0,
                "name": IMAGE_NAME,
                "source_name": list(map(short_name, run.source_names)),
                "kind": "image",
                "format": run.formats,
                "bytes": list(map(len, run.contents)),
                "width": run.widths,
                "height": run.heights,
                "mode": run.modes,
                "orientation": run.orientations,
                "animated": False,
                "referenced": True,
                "xxh3_128": run.hashes,
            },
        )
        self._media_file.write(media)
        columns = {**same, "messages": run.messages, "alternatives": "[]"}
        sizes = [len(text) + len("[]") for text in run.messages]
        self._texts_file.write(self._texts.add_columns(num, columns, sizes=sizes))

    def write(self, offsets: Sequence[Sequence[int]]) -> None:
        """Write what is left, and the byte ranges of samples from the offsets of each shard. Raises StorageError."""
        samples_file = TableFile(self._samples_path, SAMPLES)
        self._sample_groups += self._samples.take_rest()
        try:
            samples_file.write(_with_byte_ranges(group, offsets) for group in self._sample_groups)
            self._media_file.write(self._media.take_rest())
            self._texts_file.write(self._texts.take_rest())
            for file in (samples_file, self._media_file, self._texts_file):
                file.close()
        finally:
            samples_file.abandon()

    def abandon(self) -> None:
        """Let go of tables that will not be whole."""
        for file in (self._media_file, self._texts_file):
            file.abandon()


def _with_byte_ranges(samples: pa.Table, offsets: Sequence[Sequence[int]]) -> pa.Table:
    """The rows with the byte ranges of samples in their shards; null for those that stand in none."""
    starts = np.cumsum([0, *map(len, offsets)])  # where each shard's begin among all offsets
    ends = np.array([offset for of_shard in offsets for offset in of_shard] or [0, 0], np.int64)
    shard, index = (samples[name].to_numpy() for name in ("shard", "index_in_shard"))  # nan for null
    is_rejected = np.isnan(shard)  # numpy's: pyarrow's takes a tenth of a second to be imported
    shard, index = (np.nan_to_num(column).astype(np.int64) for column in (shard, index))
    places = starts[shard] + index
    for name, column in zip(BYTE_RANGE, (ends[places], ends[places + 1]), strict=True):
        samples = samples.append_column(name, pa.array(column, pa.int64(), mask=is_rejected))
    return samples.select(SAMPLES.names)


def _media_row(sample_id: str, key: int, number: int, medium: BuiltMedium) -> Row:
    header = medium.header
    return (
        sample_id,
        key,
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
