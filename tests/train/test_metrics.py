import json
from contextlib import suppress
from pathlib import Path

import pytest

from vlm_catalogs.errors import DataError, StorageError
from vlm_train.explain import steps_of_run
from vlm_train.metrics import MetricsLog, open_metrics, read_metrics


def test_a_line_torn_by_a_kill_is_cut_and_the_next_attempt_is_one_higher(tmp_path: Path) -> None:
    with open_metrics(tmp_path) as log:
        log.write({"step": 1, "train/loss": 0.1})
        log.write({"step": 2, "train/loss": 0.2})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "train/lo')
    with open_metrics(tmp_path) as log:
        assert log.attempt == 2
        log.write({"step": 2, "train/loss": 0.2})
    assert [(line["step"], line["attempt"]) for line in read_metrics(path)] == [(1, 1), (2, 1), (2, 2)]


def test_a_run_that_was_killed_in_a_line_or_is_writing_one_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "train/lo')
    assert read_metrics(path) == [{"step": 1}]
    path.write_bytes(b"")
    assert read_metrics(path) == []


def test_a_step_without_its_numbers_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0, "train/loss": 1.0}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: not a line of metrics: no epoch_step, train/grad_norm"):
        steps_of_run(tmp_path)


def test_a_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with open_metrics(tmp_path) as log:
        log.write({"step": 1})
        assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "attempt": 1}


@pytest.mark.parametrize("line", [b"nonsense", b"\xff\xfe", b"3", b"[]", b'{"attempt": "x"}'])
def test_a_line_that_is_none_of_ours_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a line of metrics"):
        open_metrics(tmp_path)


def test_a_full_disk_is_named() -> None:
    file = Path("/dev/full").open("w")  # noqa: SIM115 closing it fails once more
    try:
        with pytest.raises(StorageError, match="/dev/full: cannot be written: No space left"):
            MetricsLog(file, attempt=1).write({"step": 1})
    finally:
        with suppress(OSError):
            file.close()
