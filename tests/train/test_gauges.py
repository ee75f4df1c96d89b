from pathlib import Path

import pytest

from vlm_catalogs.config import Config, load_config
from vlm_train.device_peak import peak_of
from vlm_train.gauges import open_gauges, peak_memory
from vlm_train.live_view import plain_line
from vlm_train.load import load_family_of
from vlm_train.make_tiny import make_tiny
from vlm_train.ranks import ALONE
from vlm_train.time_left import TimeLeft


def config(folder: Path, *settings: str) -> Config:
    (folder / "run.toml").write_text("[policy]\nmodel_name_or_path = 'Qwen/Qwen3-VL'\n")
    return load_config(folder / "run.toml", overrides=settings)


def test_the_peak_is_that_of_the_device_or_the_one_given(tmp_path: Path) -> None:
    known = config(tmp_path)
    assert peak_of(known, "NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_of(known, "NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of(known, "NVIDIA H100 PCIe") == 756e12
    assert peak_of(known, "NVIDIA L40S") == 362e12
    assert peak_of(known, "NVIDIA L400") is None, "no piece of another name"
    assert peak_of(known, "cpu") is None
    assert peak_of(config(tmp_path, "logging.peak_tflops=0.5"), "cpu") == 0.5e12


def test_without_a_known_peak_nothing_is_shown_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tiny("qwen3_vl", tmp_path / "model")
    asked = config(tmp_path, f"policy.model_name_or_path='{tmp_path / 'model'}'", "logging.report_mfu=true")
    family = load_family_of(asked)
    metrics = open_gauges(asked, family, ALONE).metrics(0.0, seconds=1.0)
    assert set(metrics) == {"train/peak_memory_bytes"} and 50e6 < metrics["train/peak_memory_bytes"] <= peak_memory()
    assert "nobody has said how fast cpu is, so no MFU is shown; set [logging] peak_tflops" in capsys.readouterr().err
    model = f"policy.model_name_or_path='{tmp_path / 'model'}'"
    given = config(tmp_path, model, "logging.report_mfu=true", "logging.peak_tflops=1")
    assert open_gauges(given, family, ALONE).metrics(0.0, seconds=1.0)["train/mfu"] == 0.0
    assert capsys.readouterr().err == ""


def test_the_time_left_follows_the_pace_of_the_last_steps() -> None:
    times = iter([100.0, 102.0, 104.0, *(104.0 + 10 * number for number in range(1, 98))])
    left = TimeLeft(total_steps=100, clock=lambda: next(times))
    assert left.after(1) is None
    assert left.after(2) == pytest.approx(98 * 2.0)
    for step in range(3, 100):
        found = left.after(step)
    assert found == pytest.approx(10.0), "the slow steps of late, not the quick ones of the beginning"
    assert left.after(100) == 0


def test_a_line_shows_what_a_step_has() -> None:
    metrics = {"step": 2, "epoch": 0, "train/loss": 1.0, "train/lr": 1e-3, "train/mfu": 0.4321}
    line = plain_line({**metrics, "train/peak_memory_bytes": 2.5e9, "train/seconds_left": 3725.4}, total_steps=9)
    assert line == "step 2/9: loss 1.0000, learning rate 0.001, MFU 43.2%, memory 2,500 MB, time left 1:02:05"
