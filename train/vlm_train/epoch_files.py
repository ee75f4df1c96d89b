"""Epoch tables on disk: ``<run>/epochs/epoch-00000/part-00000.parquet``, each written whole before its epoch trains."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_catalogs.errors import DataError
from vlm_catalogs.tables import EPOCH


def epoch_part(run: Path, epoch: int) -> Path:
    """Where the table of an epoch stands; one part for now."""
    return run / "epochs" / f"epoch-{epoch:05d}" / "part-00000.parquet"


def epoch_table(run: Path, epoch: int, *, plan: Callable[[int], pa.Table]) -> pa.Table:
    """The table of ``epoch``: the written part where there is one, which is the truth; else planned and written now.

    Raises DataError when the written part cannot be read.
    """
    path = epoch_part(run, epoch)
    if not path.exists():
        _write(plan(epoch), path)
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: damaged: {error}; move it away to have it planned again") from error
    if table.schema != EPOCH:
        raise DataError(f"{path}: not an epoch table of this version; start the run in another output_dir")
    return table


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, staged)
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.rename(path)
