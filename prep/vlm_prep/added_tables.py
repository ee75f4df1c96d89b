"""Tables that a whole part gains later (semantics A1): lengths and facts, written whole, with checksums in them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError
from vlm_prep.part_store import PartStore
from vlm_prep.row_groups import ROW_GROUP_ROWS
from vlm_prep.staging import writing


def publish_table(table: pa.Table, target: Path, *, store: PartStore, staging: Path) -> None:
    """Write a table and give it its name. Raises StorageError."""
    part, folder = target.parents[1].name, target.parent.name
    staged = staging / f"{part}-{folder}-{target.name}"
    with writing(staged):
        pq.write_table(table, staged, row_group_size=ROW_GROUP_ROWS, compression="zstd", write_page_checksum=True)
    store.publish_file(staged, target)


def check_table(path: Path, store: PartStore) -> None:
    """See that a table reads as it was written, by the checksums in it. Raises DataError."""
    try:
        pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        advice = "move it away" if store.keeps_parts_here else "delete the object"  # else its copy would come back
        raise DataError(f"{store.shown(path)}: damaged: {error}; {advice} and build again") from error
