"""Validation on data of its own: the ``val`` wdinfos of i4 sources, and [validation.dataset]."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.manifest import Manifest, read_manifest
from vlm_catalogs.sources import resolve_sources
from vlm_prep.build import build_mix
from vlm_train.cli import main
from vlm_train.make_tiny import make_tiny

DEMO = Path(__file__).parents[1] / "demo_data"
CATALOG = """
from projects.cosmos3.vlm.datasets.utils import DataSource

DATAINFO = {
    name: DataSource(
        wdinfo_path={"train": f"{name}/wdinfo.json", **more}, text_keys=["texts"], media_keys=["media"]
    )
    for name, more in [("demo_clipart", {"val": "demo_clipart/wdinfo_val.json"}), ("demo_photos", {})]
}
weights = {"demo_clipart": 1, "demo_photos": 1}
subsample_config = {"demo_clipart": {"train": 0.5}}
"""
SHARED = f"""
[train]
max_num_steps = 2
output_dir = "never_used"
train_batch_per_replica = 4
optm_warmup_steps = 0
param_dtype = "float32"

[train.ckpt]
export_safetensors = false

[policy]
model_name_or_path = "model"
model_max_length = 1024

[mix]
num_workers = 1
i4_root = "{DEMO / "i4"}"

[validation]
enable = true
val_before_train = true
"""
I4 = '[custom]\nuse_i4 = true\ni4_data_source = "mine.weights"\n'
FILES = f"""
[train.train_policy.dataset]
name = "{DEMO / "jsonl" / "demo_photos.jsonl"}"

[validation.dataset]
name = "{DEMO / "jsonl_val" / "demo_clipart.jsonl"}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("held_out")
    make_tiny("qwen3_vl", place / "model")
    (place / "mine.py").write_text(CATALOG)
    before = Path.cwd()
    os.chdir(place)
    try:
        for name, text in (("i4", SHARED + I4), ("files", SHARED + FILES)):
            (place / f"{name}.toml").write_text(text)
            build_mix(load_config(Path(f"{name}.toml")))
            assert main(["run", f"{name}.toml", "--set", f"train.output_dir={name}"]) == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture(autouse=True)
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def manifest_of(name: str) -> tuple[Manifest, list[dict[str, Any]]]:
    version = Path("mixes") / name / json.loads((Path("mixes") / name / "current.json").read_text())["fingerprint"]
    return read_manifest(version), pq.read_table(version / "selection.parquet").to_pylist()


def validations(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run) / "validation.jsonl").read_text().splitlines()]


def test_the_val_wdinfo_is_a_dataset_of_its_own_that_is_never_drawn() -> None:
    manifest, rows = manifest_of("i4")
    of_val = next(one for one in manifest.datasets if one.name == "demo_clipart.val")
    assert (of_val.weight, of_val.share, of_val.num_draws, of_val.num_converted) == (0, 0, 0, 6)
    assert sum(one.share for one in manifest.datasets) == 1
    splits = {(row["dataset"], row["split"]) for row in rows}
    assert splits == {("demo_clipart", "train"), ("demo_photos", "train"), ("demo_clipart.val", "eval")}
    drawn = {
        name
        for path in Path("i4/epochs").rglob("part-*.parquet")
        for name in pq.read_table(path)["dataset"].to_pylist()
        if name
    }
    assert drawn <= {"demo_clipart", "demo_photos"}


def test_every_sample_of_it_is_measured_once_and_the_fraction_of_train_is_not_its_own() -> None:
    manifest, _ = manifest_of("i4")
    clipart = next(one for one in manifest.datasets if one.name == "demo_clipart")
    assert clipart.num_selected <= clipart.num_converted / 2 + 1
    found = validations("i4")
    assert [line["step"] for line in found] == [0, 2]
    assert all(line["validation/samples"] == 6 for line in found)
    assert all(line["validation/loss"] == line["validation/loss/demo_clipart.val"] for line in found)


def test_a_dataset_of_its_own_gives_the_loss_of_the_same_samples_as_i4_data() -> None:
    """The demo's val split stands in both forms; before the first step both runs have the same weights."""
    one, other = validations("i4")[0], validations("files")[0]
    assert other["validation/samples"] == 6
    assert other["validation/loss/demo_clipart.val"] == pytest.approx(one["validation/loss/demo_clipart.val"], rel=1e-6)


def test_a_run_without_validation_takes_the_mix_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ["--set", "validation.enable=false", "--set", "train.max_num_steps=1"]
    assert main(["run", "i4.toml", "--set", "train.output_dir=quiet", *quiet]) == 0
    assert "validation" not in capsys.readouterr().err
    build_mix(load_config(Path("i4.toml"), overrides=["validation.enable=false", "mix.name='without'"]))
    assert main(["run", "i4.toml", "--set", "mix.name='without'", "--set", "train.output_dir=no"]) == 2
    assert "validation.i4_val: the mix has None, the TOML True" in capsys.readouterr().err


def problem_of(config: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_sources(load_config(Path(config), overrides=list(overrides)))
    return str(caught.value)


def test_two_sources_of_evaluation_for_one_dataset_are_an_error_that_names_both() -> None:
    (Path("both.toml")).write_text(SHARED + I4 + "[mix.select.eval]\nnum_samples = 2\n")
    line = (SHARED + I4).count("\n") + 2
    message = problem_of("both.toml")
    assert message.startswith("mine.py:") and "demo_clipart: has a val wdinfo" in message
    assert f"both.toml:{line}: mix.select.eval.num_samples" in message
    assert "demo_photos" not in message
    for allowed in ("mix.select.eval.datasets=['demo_photos']", "validation.i4_val=false", "validation.enable=false"):
        resolve_sources(load_config(Path("both.toml"), overrides=[allowed]))
    message = problem_of("files.toml", "train.train_policy.dataset.test_size=2")
    assert "validation.dataset.name: a dataset to validate on, and" in message
    assert "train.train_policy.dataset.test_size" in message


def test_what_is_trained_on_is_no_dataset_to_validate_on() -> None:
    name = DEMO / "jsonl" / "demo_photos.jsonl"
    assert "is trained on too" in problem_of("files.toml", f"validation.dataset.name='{name}'")
    assert "no file or folder 'nowhere'" in problem_of("files.toml", "validation.dataset.name='nowhere'")
    assert "splits other than" in problem_of("files.toml", "validation.dataset.split='validation'")


def test_an_eval_split_beside_a_val_wdinfo_leaves_that_as_it_is() -> None:
    Path("beside.toml").write_text(
        SHARED
        + I4
        + "[mix.select.eval]\nnum_samples = 2\ndatasets = ['demo_photos']\n[mix.select.duplicates]\nby='both'\n"
    )
    build_mix(load_config(Path("beside.toml")))
    _, rows = manifest_of("beside")
    held_out = [row["dataset"] for row in rows if row["split"] == "eval" and row["selected"]]
    assert held_out.count("demo_clipart.val") == 6
    assert held_out.count("demo_photos") >= 2 and len(held_out) == len(
        {row["sample_key"] for row in rows if row["split"] == "eval"}
    )
