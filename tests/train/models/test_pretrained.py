"""Nothing is ever trained from random values that a user did not ask for, and an export appears whole or not at all."""

import errno
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError, DataError, StorageError
from vlm_train.make_tiny import make_tiny
from vlm_train.models import load_family
from vlm_train.models.meta_model import meta_module
from vlm_train.models.pretrained import export_model, load_pretrained

KEY = "model.language_model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    make_tiny("qwen3_vl", folder)
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def load(folder: Path, config: Any) -> torch.nn.Module:
    return load_pretrained(str(folder), dtype=torch.float32, device="cpu", config=config)


def test_a_folder_without_weights_is_named_with_what_was_looked_for(model: Path, config: Any) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model: no weights .*looked for \*\.safetensors or pytorch_model\*\.bin"):
        load(model, config)


def test_a_missing_weight_stops_with_its_name(model: Path, config: Any) -> None:
    weights = load_file(model / "model.safetensors")
    del weights[KEY]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"1 weights are missing: {KEY}"):
        load(model, config)


def test_a_weight_of_another_shape_stops_with_its_name(model: Path, config: Any) -> None:
    weights = load_file(model / "model.safetensors")
    weights[KEY] = weights[KEY][:-1].contiguous()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"1 weights are of another shape: .*{KEY}"):
        load(model, config)


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", "three"), ("hidden_size", None), ("head_dim", "x")])
def test_a_config_with_a_value_of_another_type_is_named(model: Path, key: str, value: Any) -> None:
    content = json.loads((model / "config.json").read_text())
    content["text_config"][key] = value
    (model / "config.json").write_text(json.dumps(content))
    (model / "run.toml").write_text(f'[policy]\nmodel_name_or_path = "{model}"\n')
    with pytest.raises(ConfigError, match=f"{model}: "):
        meta_module(load_config(model / "run.toml"))


def test_truncated_weights_are_damaged_weights(model: Path, config: Any) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged weights"):
        load(model, config)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "models/tiny/nowhere"])
def test_a_path_that_does_not_exist_is_never_asked_of_the_hub(name: str) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        load_family(name, "qwen3_vl")


def test_a_folder_of_another_family_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json says model_type 'qwen3_vl', not 'cosmos3_edge'"):
        load_family(str(model), "cosmos3_edge")
    with pytest.raises(ConfigError, match="model_type 'llava' cannot be trained here"):
        load_family(str(model), "llava")


def test_weights_may_come_from_another_model_folder(model: Path, config: Any, tmp_path: Path) -> None:
    make_tiny("qwen3_vl", tmp_path / "other", seed=1)
    expected = load(tmp_path / "other", config).state_dict()
    config.policy.model_safetensor_path = str(tmp_path / "other")
    (tmp_path / "other" / "config.json").unlink()  # that of the model counts
    loaded = load(model, config).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"other: .*looked for \*\.safetensors"):
        load(model, config)


def test_the_asked_dtype_is_loaded_and_exported(model: Path, config: Any, tmp_path: Path) -> None:
    module = load_pretrained(str(model), dtype=torch.bfloat16, device="cpu", config=config)
    export_model(module, str(model), tmp_path / "export")
    reloaded = load_file(tmp_path / "export" / "model.safetensors")
    assert {value.dtype for value in reloaded.values()} == {torch.bfloat16}


def test_an_export_never_overwrites(model: Path, config: Any, tmp_path: Path) -> None:
    module = load(model, config)
    (tmp_path / "export").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        export_model(module, str(model), tmp_path / "export")
    assert list((tmp_path / "export").iterdir()) == []


def test_an_export_that_fails_leaves_nothing_behind(
    model: Path, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(model, config)

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(StorageError, match=r"export: cannot be written: .*No space left"):
        export_model(module, str(model), tmp_path / "out" / "export")
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_the_disk_does_not_take_are_named(model: Path, config: Any, tmp_path: Path) -> None:
    module, limits = load(model, config), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="export: cannot be written"):
            export_model(module, str(model), tmp_path / "out" / "export")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out").iterdir()) == []
