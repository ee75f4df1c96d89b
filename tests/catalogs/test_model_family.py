"""The family comes from config.json; only where there is none, from the name."""

import json
from pathlib import Path

import pytest

from vlm_catalogs.errors import ConfigError
from vlm_catalogs.model_family import find_family


def model_folder(folder: Path, content: object) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(content))
    return str(folder)


@pytest.mark.parametrize(
    ("model_type", "family"),
    [
        ("qwen3_vl", "qwen3_vl"),
        ("qwen3_vl_moe", "qwen3_vl"),
        ("nemotron_h_omni", "nemotron_vl"),
        ("cosmos3_edge", "nemotron_vl"),
    ],
)
def test_config_json_decides_whatever_the_folder_is_called(tmp_path: Path, model_type: str, family: str) -> None:
    found = find_family(model_folder(tmp_path / "Qwen3-VL-Nemotron-Omni", {"model_type": model_type}))
    assert (found.family, found.model_type, found.decided_by) == (family, model_type, "config.json")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3_vl"),
        ("nvidia/Nemotron-3-Nano-Omni-30B-A3B-Reasoning-BF16", "nemotron_vl"),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16", "nemotron_vl"),
        ("nvidia/Cosmos3-Edge", "nemotron_vl"),
        ("models/tiny/nemotron_h_omni", "nemotron_vl"),
        ("models/tiny/qwen3_vl_moe", "qwen3_vl"),
    ],
)
def test_a_name_decides_where_there_is_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, family: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    found = find_family(name)
    assert (found.family, found.model_type, found.decided_by) == (family, None, "name")


def test_a_hub_id_that_was_downloaded_is_decided_by_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub" / "models--team--our-model"
    model_folder(folder / "snapshots" / "abc", {"model_type": "nemotron_h_omni"})
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc\n")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    assert find_family("team/our-model").model_type == "nemotron_h_omni"
    assert find_family("team/our-model", revision="abc").model_type == "nemotron_h_omni"
    with pytest.raises(ConfigError, match="the name tells no family"):
        find_family("team/our-model", revision="other")


def test_a_model_that_is_none_of_the_families_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_type 'llama' is none of qwen3_vl"):
        find_family(model_folder(tmp_path / "qwen3_vl", {"model_type": "llama"}))
    with pytest.raises(ConfigError, match=r"'some/model'.*the name tells no family"):
        find_family("some/model")
    with pytest.raises(ConfigError, match="the name tells no family"):
        find_family("Qwen/Qwen2.5-VL-7B-Instruct")


@pytest.mark.parametrize("content", [[], {}, {"model_type": 3}])
def test_a_config_without_a_model_type_is_an_error_not_a_guess(tmp_path: Path, content: object) -> None:
    with pytest.raises(ConfigError, match="no model_type"):
        find_family(model_folder(tmp_path / "qwen3_vl", content))


def test_a_config_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        find_family(str(tmp_path))
