from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.tables import SAMPLE_LOSS
from vlm_train import sample_loss
from vlm_train.planned_rows import PlannedRow
from vlm_train.sample_loss import SampleLossLog
from vlm_train.step_result import SampleLoss
from vlm_train.worst_samples import worst_samples


def planned(step: int, position: int) -> PlannedRow:
    return PlannedRow(
        step=step, row=0, position=position, dataset="a", sample_id=f"{step}-{position}", sample_key=2**63 + step,
        alternative=0, part="p", shard=0, index_in_shard=0, tokens=9, supervised_tokens=4, vision_patches=0,
        status="planned",
    )  # fmt: skip


def add_steps(log: SampleLossLog, steps: range) -> None:
    for step in steps:
        rows = [planned(step, position) for position in range(2)]
        losses = [
            SampleLoss(
                dataset="a", sample_id=row.sample_id, loss_sum=step + row.position / 10, num_supervised_tokens=4,
                num_tokens=9,
            )
            for row in rows
        ]  # fmt: skip
        log.add(1, rows, losses)


def read(folder: Path) -> list[dict]:
    paths = sorted((folder / "sample_loss" / "rank-00000").glob("part-*.parquet"))
    tables = [pq.read_table(path) for path in paths]
    assert all(table.schema == SAMPLE_LOSS for table in tables)
    return [row for table in tables for row in table.to_pylist()]


def test_no_more_steps_than_the_interval_are_lost_to_a_kill(tmp_path: Path) -> None:
    log = SampleLossLog(tmp_path, attempt=1, steps_per_write=3)
    for step in range(8):  # never closed, as a kill leaves it
        add_steps(log, range(step, step + 1))
        written = {row["step"] for row in read(tmp_path)}
        assert written == set(range((step + 1) // 3 * 3))


def test_every_loss_stands_there_once_with_its_place_and_attempt(tmp_path: Path) -> None:
    with SampleLossLog(tmp_path, attempt=2, steps_per_write=3) as log:
        add_steps(log, range(5))
    rows = read(tmp_path)
    assert [(row["step"], row["position"]) for row in rows] == [(step, at) for step in range(5) for at in range(2)]
    assert rows[3] == {
        "attempt": 2, "epoch": 1, "step": 1, "row": 0, "position": 1, "dataset": "a", "sample_id": "1-1",
        "sample_key": 2**63 + 1, "loss_sum": 1.1, "supervised_tokens": 4,
    }  # fmt: skip


def test_a_full_part_is_left_alone_and_attempts_never_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_loss, "ROWS_PER_PART", 4)
    for attempt in (1, 2):
        with SampleLossLog(tmp_path, attempt=attempt, steps_per_write=1) as log:
            add_steps(log, range(3))
    names = sorted(path.name for path in (tmp_path / "sample_loss" / "rank-00000").iterdir())
    assert names == [f"part-0000{attempt}-0000{part}.parquet" for attempt in (1, 2) for part in (0, 1)]
    assert len(read(tmp_path)) == 12


def test_a_loss_beside_the_wrong_sample_is_our_mistake(tmp_path: Path) -> None:
    log = SampleLossLog(tmp_path, attempt=1, steps_per_write=3)
    loss = SampleLoss(dataset="a", sample_id="other", loss_sum=1.0, num_supervised_tokens=1, num_tokens=2)
    with pytest.raises(AssertionError, match="stands where a/0-0 was planned"):
        log.add(0, [planned(0, 0)], [loss])


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "sample_loss").write_text("in the way")
    log = SampleLossLog(tmp_path, attempt=1, steps_per_write=1)
    with pytest.raises(StorageError, match=r"part-00001-00000\.parquet: cannot be written"):
        add_steps(log, range(1))


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    with SampleLossLog(tmp_path, attempt=1, steps_per_write=1) as log:
        add_steps(log, range(2))
    [part] = (tmp_path / "sample_loss" / "rank-00000").glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    lines = [{"epoch": 1, "epoch_step": step, "attempt": 1, "train/loss": 1.0} for step in range(2)]
    with pytest.raises(DataError, match=r"part-00001-00000\.parquet: damaged: .*; move it away to go without"):
        worst_samples(tmp_path, lines, most=3)
