"""The decoded facts of parts: every medium decoded once, as training would, from the shards; kept with the part."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs import tables
from vlm_catalogs.decode import MEDIA_ERRORS, decode_image, rgb_pixels, video_frames
from vlm_catalogs.errors import DataError
from vlm_catalogs.hashing import content_hash
from vlm_catalogs.layout import shard_name
from vlm_catalogs.shard_reader import ShardReader
from vlm_prep.added_tables import publish_table
from vlm_prep.fact_files import COPIED, DECODED_NAME
from vlm_prep.part_store import PartStore, advice_on_damage, check_content, read_record
from vlm_prep.picture_facts import picture_facts

NOT_DECODED: dict[str, Any] = {"decoded": False, "decoded_frames": 0}

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTask:
    """One part to decode; crosses to worker processes."""

    folder: Path
    dataset: str
    store: PartStore
    """Where the part is kept."""
    staging: Path


def decode(task: DecodeTask) -> None:
    """Decode the media of one part and publish what was found. Raises DataError or StorageError."""
    record = read_record(task.folder, task.store)
    task.store.bring((task.folder / file.name for file in record.tables), below=task.folder)
    for file in record.tables:
        check_content(task.folder, file, task.store)
    table = decode_part(task.folder, task.store)
    publish_table(table, task.folder / DECODED_NAME, store=task.store, staging=task.staging)


def decode_part(folder: Path, store: PartStore) -> pa.Table:
    """A row of ``tables.DECODED`` per medium. Raises DataError where the shards do not hold what the tables say."""
    rows = pq.read_table(folder / "media.parquet", columns=[*COPIED, "frames"]).to_pylist()
    of_sample: dict[int, list[Facts]] = defaultdict(list)
    for row in rows:
        of_sample[row["sample_key"]].append(row)
    found: dict[tuple[str, str], Facts] = {}
    for reader, index, sample_key in _places(folder, store):
        if sample_key in of_sample:
            _decode_sample(reader, index, of_sample[sample_key], found, advice=advice_on_damage(store))
    table = [{name: row[name] for name in COPIED} | found[_identity(row)] for row in rows]
    return pa.Table.from_pylist(table, schema=tables.DECODED)


def _places(folder: Path, store: PartStore) -> Iterator[tuple[ShardReader, int, int]]:
    """Shard, index in it and key of every kept sample, in the order of the shards."""
    columns = ["shard", "index_in_shard", "sample_key"]
    samples = pq.read_table(folder / "samples.parquet", columns=columns, filters=[("status", "=", "kept")])
    ordered = samples.sort_by([("shard", "ascending"), ("index_in_shard", "ascending")])
    places = zip(*(ordered[name].to_pylist() for name in columns), strict=True)
    for shard, of_shard in groupby(places, key=itemgetter(0)):
        with store.fetched(folder / shard_name(shard)) as path, ShardReader(path) as reader:
            for _, index, sample_key in of_shard:
                yield reader, index, sample_key


def _identity(row: Facts) -> tuple[str, str]:
    return row["kind"], row["xxh3_128"]


def _decode_sample(
    reader: ShardReader, index: int, rows: list[Facts], found: dict[tuple[str, str], Facts], *, advice: str
) -> None:
    """Add what is not found yet of the media of one sample."""
    new = [row for row in rows if _identity(row) not in found]
    if not new:
        return
    sample = reader.read(index)
    for row in new:
        content = sample.medium(row["name"])
        if content_hash(content) != row["xxh3_128"]:
            raise DataError(f"{row['dataset']}/{row['sample_id']}: {row['name']} is not what its hash says; {advice}")
        if _identity(row) not in found:
            found[_identity(row)] = (
                image_facts(content) if row["kind"] == "image" else video_facts(content, row["frames"])
            )


def image_facts(content: memoryview) -> Facts:
    """What decoding one image finds."""
    with warnings.catch_warnings(action="ignore"):  # what is odd about a file that decodes is no matter here
        try:
            pixels = decode_image(content)
        except MEDIA_ERRORS as error:
            return {**NOT_DECODED, "problem": _problem(error)}
    return {"decoded": True, "decoded_frames": 1, **asdict(picture_facts(pixels))}


def video_facts(content: memoryview, num_frames: int) -> Facts:
    """What decoding one video finds: training may ask for any of the frames that its header counts."""
    num_decoded = 0
    try:
        for num_decoded, frame in enumerate(video_frames(content), start=1):
            if num_decoded == num_frames:
                rgb_pixels(frame)
                return {"decoded": True, "decoded_frames": num_decoded}
    except MEDIA_ERRORS as error:
        return {**NOT_DECODED, "decoded_frames": num_decoded, "problem": _problem(error)}
    problem = f"only {num_decoded:,} of {num_frames:,} frames decode"
    return {**NOT_DECODED, "decoded_frames": num_decoded, "problem": problem}


def _problem(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace").decode()
