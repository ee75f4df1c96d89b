"""Epoch tables on disk: ``<run>/epochs/epoch-00000/part-00000.parquet``, each written whole before its epoch trains.

Beside each part stands its hash, ``part-00000.parquet.xxh3_128``.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.durable import sync_file, write_synced
from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.tables import EPOCH


def epoch_part(run: Path, epoch: int) -> Path:
    """Where the table of an epoch stands; one part for now."""
    return run / "epochs" / f"epoch-{epoch:05d}" / "part-00000.parquet"


def epoch_table(run: Path, epoch: int, *, plan: Callable[[int], pa.Table]) -> pa.Table:
    """The table of ``epoch``: the written part where there is one, which is the truth; else planned and written now.

    Raises DataError when the written part is not what was written (Parquet itself would read much damage as data), and
    StorageError when it cannot be written.
    """
    path = epoch_part(run, epoch)
    if not path.exists():
        table = plan(epoch)
        try:
            _write(table, path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error}; then go on with --resume") from error
    problem = _damage(path)
    if problem:
        raise DataError(f"{path}: damaged: {problem}; move its folder away to have it planned again")
    table = pq.read_table(path)
    if table.schema != EPOCH:
        raise DataError(f"{path}: not an epoch table of this version; start the run in another output_dir")
    return table


def hash_file(part: Path) -> Path:
    """Where the hash of an epoch part stands."""
    return part.with_name(f"{part.name}.xxh3_128")


def _damage(path: Path) -> str | None:
    recorded = hash_file(path)
    if not recorded.is_file():
        return f"its hash {recorded.name} is missing"
    if file_hash(path) != recorded.read_bytes().decode("ascii", "replace").strip():
        return f"its content differs from its hash in {recorded.name}"
    return None


def _write(table: pa.Table, path: Path) -> None:
    """Write the part, then its hash, then rename the part: a part that is there has its hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, staged)
    sync_file(staged)
    write_synced(hash_file(path), f"{file_hash(staged)}\n".encode())
    staged.rename(path)
