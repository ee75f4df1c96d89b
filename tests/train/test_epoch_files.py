"""Epoch tables on disk: the written part is the truth, so it must be what was written."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import file_hash
from vlm_catalogs.tables import EPOCH
from vlm_train.epoch import EpochPart
from vlm_train.epoch_files import EpochFiles, epoch_part, hash_file, written_parts


def table(rows: int) -> pa.Table:
    columns = {field.name: ["x" if field.type == pa.string() else 1] * rows for field in EPOCH}
    return pa.table(columns, schema=EPOCH)


def never() -> Iterator[EpochPart]:
    raise AssertionError("planned again")


def parts(*rows: int) -> Callable[[], Iterator[EpochPart]]:
    """A plan of parts with so many rows, of one row a step."""
    steps = [sum(rows) if number == len(rows) - 1 else None for number in range(len(rows))]
    return lambda: (EpochPart(table=table(size), num_steps=end) for size, end in zip(rows, steps, strict=True))


def epoch_table(run: Path, epoch: int, *, plan: Callable[[], Iterator[EpochPart]]) -> pa.Table:
    return EpochFiles(run, epoch, plan=plan).part(0).table


def test_a_written_part_is_read_not_planned_again(tmp_path: Path) -> None:
    assert epoch_table(tmp_path, 2, plan=parts(2)).num_rows == 2
    assert epoch_table(tmp_path, 2, plan=never).equals(table(2))


def test_a_part_whose_write_was_killed_is_planned_again(tmp_path: Path) -> None:
    epoch_table(tmp_path, 0, plan=parts(3))
    part = epoch_part(tmp_path, 0)
    part.rename(part.with_name(f".{part.name}.tmp"))
    assert epoch_table(tmp_path, 0, plan=parts(4)).num_rows == 4
    assert epoch_table(tmp_path, 0, plan=never).num_rows == 4


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Without the hash about one flip in eight is read as other rows, and some end in errors that are not ours."""
    epoch_table(tmp_path, 0, plan=parts(5))
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
    epoch_table(tmp_path, 0, plan=parts(1))
    path = hash_file(epoch_part(tmp_path, 0))
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        epoch_table(tmp_path, 0, plan=never)


def test_a_place_that_takes_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "epochs").write_text("in the way")
    with pytest.raises(StorageError, match=r"part-00000\.parquet: cannot be written"):
        epoch_table(tmp_path, 0, plan=parts(1))


def test_parts_are_planned_one_by_one_and_only_where_none_is_written(tmp_path: Path) -> None:
    files = EpochFiles(tmp_path, 0, plan=parts(3, 2, 1))
    assert [(part.table.num_rows, part.num_steps) for part in map(files.part, range(2))] == [(3, None), (2, None)]
    assert not epoch_part(tmp_path, 0, 2).exists()
    again = EpochFiles(tmp_path, 0, plan=parts(7, 7, 1))
    assert [(part.table.num_rows, part.num_steps) for part in map(again.part, range(3))] == [
        (3, None),
        (2, None),
        (1, 15),
    ]
    assert EpochFiles(tmp_path, 0, plan=never).num_steps() == 15


def test_the_number_of_steps_plans_every_part(tmp_path: Path) -> None:
    assert EpochFiles(tmp_path, 1, plan=parts(3, 2, 1)).num_steps() == 6
    assert EpochFiles(tmp_path, 1, plan=never).part(2).num_steps == 6


def test_an_epoch_whose_last_part_does_not_say_so_ends_with_an_empty_one(tmp_path: Path) -> None:
    """As a part that was written by hand, or by a version that knew one part only."""
    path = epoch_part(tmp_path, 0)
    EpochFiles(tmp_path, 0, plan=parts(3)).part(0)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    hash_file(path).write_text(f"{file_hash(path)}\n")
    files = EpochFiles(tmp_path, 0, plan=parts(3))
    assert files.part(0).num_steps is None
    assert (files.part(1).table.num_rows, files.part(1).num_steps) == (0, 3)


def test_a_run_and_a_plan_may_write_the_same_epochs_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def write_all() -> list[int]:
        sizes = []
        for epoch in range(40):
            together.wait(10)
            written = written_parts(EpochFiles(tmp_path, epoch, plan=parts(5, 4)))
            sizes += [part.table.num_rows for part in written]
        return sizes

    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(write_all) for _ in range(2))
        assert first.result() == second.result() == [5, 4] * 40
    assert not list(tmp_path.rglob(".*"))
