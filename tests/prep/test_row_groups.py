"""Tables written by row groups: the bytes of a table that is written at once, and groups that end where they must."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlm_prep import row_groups
from vlm_prep.row_groups import RowGroups, TableFile, write_table

SCHEMA = pa.schema([("dataset", pa.string()), ("sample_id", pa.string()), ("number", pa.int32())])


def written(path: Path, *, rows: int, text_bytes: int = 0, at_once: int = 1) -> bytes:
    """A file of that many rows, which come ``at_once`` at a time."""
    groups, file = RowGroups(SCHEMA, same={"dataset": "d"}), TableFile(path, SCHEMA)
    for begin in range(0, rows, at_once):
        groups.add([(f"id {number}", number or None) for number in range(begin, min(begin + at_once, rows))])
        groups.num_bytes += text_bytes
        file.write(groups.take_full())
    file.write(groups.take_rest())
    file.close()
    return path.read_bytes()


@pytest.mark.parametrize("in_block", [1, 4, 256])
@pytest.mark.parametrize("at_once", [1, 3, 25])
@pytest.mark.parametrize("rows", [0, 1, 9, 10, 11, 40])
def test_groups_give_the_bytes_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, at_once: int, in_block: int
) -> None:
    monkeypatch.setattr(row_groups, "ROWS_AT_ONCE", in_block)
    monkeypatch.setattr(row_groups, "ROW_GROUP_ROWS", 10)
    numbers = [number or None for number in range(rows)]
    whole = pa.Table.from_arrays(
        [
            pa.array(["d"] * rows, pa.string()),
            pa.array([f"id {number}" for number in range(rows)], pa.string()),
            pa.array(numbers, pa.int32()),
        ],
        schema=SCHEMA,
    )
    write_table(whole, tmp_path / "whole")
    assert written(tmp_path / "grown", rows=rows, at_once=at_once) == (tmp_path / "whole").read_bytes()


def test_long_texts_end_a_group_before_its_rows_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "ROW_GROUP_BYTES", 100)
    written(tmp_path / "texts", rows=10, text_bytes=30)
    metadata = pq.read_metadata(tmp_path / "texts")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [4, 4, 2]
