"""One stored sample by its place: from its shard, or in S3 from its own bytes alone."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError
from vlm_catalogs.layout import shard_name
from vlm_catalogs.object_copies import ObjectCopies
from vlm_catalogs.sample import Sample
from vlm_catalogs.shard_reader import RangeReader, ShardReader


@contextmanager
def one_sample(folder: Path, shard: int, index: int, *, copies: ObjectCopies) -> Iterator[Sample]:
    """The sample ``index`` of a shard of a part, for as long as this lasts. Raises DataError or StorageError."""
    path = folder / shard_name(shard)
    if not copies.has_place_for(path):
        with ShardReader(path) as reader:
            yield reader.read(index)
        return
    begin, end = _span(folder, shard, index)
    with TemporaryDirectory(prefix="vlm-prep-sample-") as scratch:
        piece = Path(scratch) / path.name
        piece.write_bytes(copies.objects.read_range(copies.location(path), begin, end))
        with closing(RangeReader(piece, begin=begin)) as reader_of_range:
            yield reader_of_range.read(begin, end)


def _span(folder: Path, shard: int, index: int) -> tuple[int, int]:
    """Where a sample begins and ends in its shard, as the index says."""
    path = folder / "samples.parquet"
    filters = [("shard", "=", shard), ("index_in_shard", "=", index)]
    try:
        rows = pq.read_table(path, columns=["byte_begin", "byte_end"], filters=filters).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}; vlm-prep verify says what is wrong") from error
    if len(rows) != 1:
        raise DataError(f"{path}: {len(rows)} samples at place {index} of shard {shard}, expected one")
    return rows[0]["byte_begin"], rows[0]["byte_end"]
