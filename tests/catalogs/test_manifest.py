"""The manifest of a mix: a golden file of version 1 stays readable for ever, and what is damaged says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.errors import DataError
from vlm_catalogs.manifest import current_mix, manifest_text, read_manifest

GOLDEN = Path(__file__).parents[1] / "golden" / "manifest_v1.json"


def write(folder: Path, text: str) -> Path:
    (folder / "manifest.json").write_text(text)
    return folder


def test_a_manifest_of_version_1_stays_readable(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOLDEN.read_text()))
    (dataset,) = manifest.datasets
    (part,) = dataset.parts
    assert (manifest.name, manifest.epoch_samples, manifest.encoding.family) == ("golden", 1, "qwen3_vl")
    assert (dataset.name, dataset.share, dataset.num_converted, dataset.num_selected) == ("set", 1.0, 2, 1)
    assert dataset.shards == "../../../shards/set/cc1e00af7f4143b652d02918442184ba"
    assert (part.num_samples, part.lengths) == (2, "lengths/519189bb1ec60f6dad827c4e9b79ad56.parquet")


def test_a_manifest_of_this_version_is_written_as_it_was(tmp_path: Path) -> None:
    """When this differs, VERSION goes up, this golden file stays, and one of the new version comes beside it."""
    assert manifest_text(read_manifest(write(tmp_path, GOLDEN.read_text()))) == GOLDEN.read_text()


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(GOLDEN.read_text()).items() if key != name}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({**without(""), "version": 2}, "manifest version 2, this vlm-mix reads up to 1; use a newer one"),
        (without("version"), "manifest version None"),
        ({**without(""), "format": "other"}, "not a mix manifest"),
        (without("datasets"), "damaged manifest: 'datasets'"),
        (without("seed"), "damaged manifest: .*seed"),
        ({**without(""), "datasets": [5]}, "damaged manifest"),
        ([], "damaged manifest"),
        ("text", "damaged manifest"),
        (5, "damaged manifest"),
    ],
)
def test_a_manifest_that_is_newer_or_damaged_is_named(tmp_path: Path, fields: Any, problem: str) -> None:
    with pytest.raises(DataError, match=f"manifest.json: {problem}"):
        read_manifest(write(tmp_path, json.dumps(fields)))


def test_a_folder_without_a_manifest_is_no_whole_mix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a whole mix; run vlm-prep build-mix"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"other": 1}', '"a"'])
def test_a_pointer_that_is_damaged_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "current.json").write_text(text)
    with pytest.raises(DataError, match=r"current\.json: damaged: .*run vlm-prep build-mix again"):
        current_mix(tmp_path)
