"""The samples of a part's shards against its index tables: ids, places, media by hash, texts by their letters."""

from collections.abc import Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vlm_catalogs import json_text
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import content_hash, sample_key
from vlm_catalogs.layout import PartRecord
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import ShardReader, WrongColumns
from vlm_prep.verify.findings import DAMAGED, STALE_INDEX, UNREADABLE, WRONG_COUNT, WRONG_SCHEMA, Finding

SAMPLE_COLUMNS = ["dataset", "sample_id", "sample_key", "status", "num_turns", "num_images", "num_videos"]
SAMPLE_COLUMNS += ["num_alternatives", "part", "shard", "index_in_shard", "byte_begin", "byte_end"]
MEDIA_COLUMNS = ["sample_id", "name", "kind", "format", "bytes", "width", "height", "duration", "fps", "frames"]
MEDIA_COLUMNS += ["xxh3_128"]
TEXT_COLUMNS = ["sample_id", "messages", "alternatives"]

Row = dict[str, Any]


def check_samples(folder: Path, record: PartRecord) -> Iterator[Finding]:
    """Every sample of every shard, in order, against the rows that the tables have of it."""
    indexed = _indexed(folder)
    for number, file in enumerate(record.shards):
        path = folder / file.name
        if not path.is_file():
            num_samples = record.shard_samples[number] if number < len(record.shard_samples) else 0
            for _ in range(num_samples):
                next(indexed, None)
            continue
        try:
            reader = ShardReader(path)
        except DataError as error:
            problem = WRONG_SCHEMA if isinstance(error, WrongColumns) else UNREADABLE
            yield Finding(problem=problem, path=str(path), detail=str(error).removeprefix(f"{path}: "))
            return  # which rows belong to the next shard is not known
        with reader:
            yield from _check_count(path, reader, record, number)
            for index in range(reader.num_samples):
                yield from _check_sample(path, reader, (number, index), next(indexed, None), record)
    if (left := sum(1 for _ in indexed)) > 0:
        detail = f"{left:,} kept samples are in no shard"
        yield Finding(problem=WRONG_COUNT, path=str(folder / "samples.parquet"), detail=detail)


def _indexed(folder: Path) -> Iterator[tuple[Row, Row, list[Row]]]:
    """The (row of samples, row of texts, rows of media) of each kept sample in order."""
    kept = (row for row in _rows(folder / "samples.parquet", SAMPLE_COLUMNS) if row["status"] == "kept")
    media = groupby(_rows(folder / "media.parquet", MEDIA_COLUMNS), key=lambda row: row["sample_id"])
    group = next(media, None)
    texts = _rows(folder / "texts.parquet", TEXT_COLUMNS)
    nothing: Row = {}
    for sample, text in zip_longest(kept, texts, fillvalue=nothing):
        if group is not None and group[0] == sample.get("sample_id"):
            yield sample, text, list(group[1])
            group = next(media, None)
        else:
            yield sample, text, []


def _rows(path: Path, columns: list[str]) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=columns):
            yield from batch.to_pylist()


def _check_count(path: Path, reader: ShardReader, record: PartRecord, number: int) -> Iterator[Finding]:
    recorded = record.shard_samples[number] if number < len(record.shard_samples) else None
    if reader.num_samples != recorded:
        detail = f"{reader.num_samples:,} samples, part.json says {recorded}"
        yield Finding(problem=WRONG_COUNT, path=str(path), detail=detail)


def _check_sample(
    path: Path,
    reader: ShardReader,
    place: tuple[int, int],
    indexed: tuple[Row, Row, list[Row]] | None,
    record: PartRecord,
) -> Iterator[Finding]:
    shard, index = place
    try:
        sample = reader.read(index)
    except DataError as error:
        yield Finding(problem=DAMAGED, path=str(path), detail=str(error).removeprefix(f"{path}: "))
        return
    where = f"sample {index} ({sample.sample_id})"
    for facts in sample.media_table:
        if content_hash(sample.medium(facts.name)) != facts.xxh3_128:
            yield Finding(problem=DAMAGED, path=str(path), detail=f"{where}: {facts.name} is not what its hash says")
    if indexed is None:
        yield Finding(problem=WRONG_COUNT, path=str(path), detail=f"{where} has no row in samples.parquet")
        return
    row, text, media = indexed
    begin, end = reader.byte_range(index)
    place_row = {"part": record.name, "shard": shard, "index_in_shard": index, "byte_begin": begin, "byte_end": end}
    expected = {**_sample_row(sample, record), **place_row}
    yield from _compare(path, where, "samples.parquet", row, expected)
    yield from _compare(path, where, "texts.parquet", text, _text_row(sample))
    wanted = [_media_row(sample, number) for number in range(len(sample.media_table))]
    if len(media) != len(wanted):
        detail = f"{where}: {len(wanted)} media, media.parquet has {len(media)} of it"
        yield Finding(problem=STALE_INDEX, path=str(path), detail=detail)
    for found, medium in zip(media, wanted, strict=False):
        yield from _compare(path, where, "media.parquet", found, medium)


def _compare(path: Path, where: str, table: str, found: Row, expected: Row) -> Iterator[Finding]:
    """One finding for a row that says something else, naming the first column that does."""
    for name, value in expected.items():
        if found.get(name) != value:
            detail = f"{where}: {name} is {value!r:.80}, {table} says {found.get(name)!r:.80}"
            yield Finding(problem=STALE_INDEX, path=str(path), detail=detail)
            return


def _sample_row(sample: Sample, record: PartRecord) -> Row:
    kinds = [facts.kind for facts in sample.media_table]
    return {
        "sample_id": sample.sample_id,
        "dataset": sample.dataset,
        "sample_key": sample_key(record.dataset, sample.sample_id),
        "num_turns": len(sample.messages),
        "num_images": kinds.count("image"),
        "num_videos": kinds.count("video"),
        "num_alternatives": 1 + len(sample.alternatives),
    }


def _text_row(sample: Sample) -> Row:
    return {
        "sample_id": sample.sample_id,
        "messages": json_text.dumps(sample.messages),
        "alternatives": json_text.dumps(sample.alternatives),
    }


def _media_row(sample: Sample, number: int) -> Row:
    facts = sample.media_table[number]
    names = [name for name in MEDIA_COLUMNS if name not in ("sample_id", "bytes")]
    return {"sample_id": sample.sample_id, "bytes": facts.size, **{name: getattr(facts, name) for name in names}}
