import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vlm_catalogs.config import load_config
from vlm_catalogs.config.sections import Config
from vlm_train.answers import Answer
from vlm_train.loggers import missing_loggers, numbers_of, open_loggers

METRICS = {"step": 3, "train/loss": 1.5, "data/undecodable": ["a/b"], "loss/photos": 2.5, "attempt": 1}


ANSWER = Answer(
    dataset="photos",
    sample_id="7",
    prompt="what?",
    answer="a <b>dog</b>",
    reference="a cat",
    num_tokens=4,
    is_whole=True,
)


def config(folder: Path, *loggers: str) -> Config:
    text = (
        f'[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL"\n[logging]\nlogger = {list(loggers)}\nproject_name = "ours"\n'
        'experiment_name = "the first"\n'
    )
    (folder / "run.toml").write_text(text)
    return load_config(folder / "run.toml")


def test_numbers_leave_out_what_is_no_number() -> None:
    assert numbers_of(METRICS) == {"train/loss": 1.5, "loss/photos": 2.5, "attempt": 1}


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    [logger] = open_loggers(config(tmp_path, "console", "tensorboard"), tmp_path)
    for step in (1, 2):
        logger.log({"train/loss": 1.5 / step}, step=step)
        logger.log_answers([ANSWER], step=step)
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 1.5), (2, 0.75)]
    texts = events.Tensors("answers/photos/7/text_summary")
    assert [event.step for event in texts] == [1, 2]
    assert b"a <b>dog</b>" in texts[0].tensor_proto.string_val[0]


def test_wandb_writes_a_run_offline_and_goes_on_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    for step in (1, 2):
        [logger] = open_loggers(config(tmp_path, "wandb"), tmp_path)
        logger.log({"train/loss": 1.5}, step=step)
        logger.log_answers([ANSWER], step=step)
        logger.close()
        ids.append((tmp_path / "wandb_run_id").read_text())
    assert ids[0] == ids[1]
    written = list((tmp_path / "wandb").glob(f"offline-run-*-{ids[0]}/run-{ids[0]}.wandb"))
    assert written and b"train/loss" in written[0].read_bytes()
    assert b"the first" in written[0].read_bytes() and b"ours" in written[0].read_bytes()
    [table] = written[0].parent.glob("files/media/table/validation/answers_*.table.json")
    assert "a <b>dog</b>" in table.read_text()


def test_wandb_without_a_login_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from vlm_catalogs.config import load_config\n"
        "from vlm_train.loggers import open_loggers\n"
        "open_loggers(load_config(pathlib.Path(sys.argv[1]) / 'run.toml'), pathlib.Path(sys.argv[1]))\n"
    )
    config(tmp_path, "wandb")
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**known, "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")},
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    assert "ConfigError" in found.stderr
    assert "run.toml:4: logging.logger: wandb cannot start" in found.stderr
    assert "WANDB_MODE=offline" in found.stderr


def test_trackio_keeps_a_run_in_a_local_database_and_goes_on_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="pip install 'vlm-mix[trackio]'")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    program = (
        "import pathlib, sys\n"
        "from vlm_catalogs.config import load_config\n"
        "from vlm_train.loggers import open_loggers\n"
        "folder, step = pathlib.Path(sys.argv[1]), int(sys.argv[2])\n"
        "[logger] = open_loggers(load_config(folder / 'run.toml'), folder)\n"
        "logger.log({'train/loss': 1.5 / step}, step=step)\n"
        "logger.close()\n"
    )
    config(tmp_path, "trackio")
    for step in ("1", "2"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path), step], check=True, timeout=120)
    [database] = (tmp_path / "kept").glob("*.db")
    with closing(sqlite3.connect(database)) as connection:
        lines = connection.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [(name, step) for name, step, _ in lines] == [("the first", 1), ("the first", 2)]
    assert '"train/loss": 0.75' in json.dumps(json.loads(lines[1][2]))


def test_a_logger_that_is_not_installed_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm_train.loggers.find_spec", lambda name: None if name == "trackio" else object())
    assert missing_loggers(["console", "tensorboard", "wandb"]) == []
    [said] = missing_loggers(["trackio", "console"])
    assert "trackio is not installed" in said and "vlm-mix[trackio]" in said
