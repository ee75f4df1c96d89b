"""Epoch tables on disk: the written part is the truth, so it must be what was written."""

import random
from pathlib import Path

import pyarrow as pa
import pytest

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.tables import EPOCH
from vlm_train.epoch_files import epoch_part, epoch_table, hash_file


def table(rows: int) -> pa.Table:
    columns = {field.name: ["x" if field.type == pa.string() else 1] * rows for field in EPOCH}
    return pa.table(columns, schema=EPOCH)


def never(epoch: int) -> pa.Table:
    raise AssertionError("planned again")


def test_a_written_part_is_read_not_planned_again(tmp_path: Path) -> None:
    assert epoch_table(tmp_path, 2, plan=lambda epoch: table(epoch)).num_rows == 2
    assert epoch_table(tmp_path, 2, plan=never).equals(table(2))


def test_a_part_whose_write_was_killed_is_planned_again(tmp_path: Path) -> None:
    epoch_table(tmp_path, 0, plan=lambda _: table(3))
    part = epoch_part(tmp_path, 0)
    part.rename(part.with_name(f".{part.name}.tmp"))
    assert epoch_table(tmp_path, 0, plan=lambda _: table(4)).num_rows == 4
    assert epoch_table(tmp_path, 0, plan=never).num_rows == 4


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Without the hash about one flip in eight is read as other rows, and some end in errors that are not ours."""
    epoch_table(tmp_path, 0, plan=lambda _: table(5))
    part = epoch_part(tmp_path, 0)
    content, draw = part.read_bytes(), random.Random(0)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        part.write_bytes(damaged)
        with pytest.raises(DataError, match=r"part-00000\.parquet: damaged"):
            epoch_table(tmp_path, 0, plan=never)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"0" * 32])
def test_a_hash_that_is_lost_or_damaged_is_named(tmp_path: Path, content: bytes | None) -> None:
    epoch_table(tmp_path, 0, plan=lambda _: table(1))
    path = hash_file(epoch_part(tmp_path, 0))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        epoch_table(tmp_path, 0, plan=never)


def test_a_place_that_takes_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "epochs").write_text("in the way")
    with pytest.raises(StorageError, match=r"part-00000\.parquet: cannot be written"):
        epoch_table(tmp_path, 0, plan=lambda _: table(1))
