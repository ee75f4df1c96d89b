"""MMPR's meta.json becomes datasets: roots, repeats, weights, and errors that name the entry."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.source import FileSource
from vlm_catalogs.sources import ResolvedSources, resolve_sources

MODEL = '[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL-8B-Instruct"\n'


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("images", "set/pictures", "c"):
        Path(name).mkdir(parents=True)
    Path("a.jsonl").touch()
    Path("set/b.jsonl").touch()


def meta(**entries: Any) -> None:
    Path("set/meta.json").write_text(json.dumps(entries))


def resolve(text: str) -> ResolvedSources:
    Path("run.toml").write_text(MODEL + text)
    return resolve_sources(load_config(Path("run.toml")))


AS_DATASET = '[train.train_policy]\ndataset.name = "set/meta.json"\n'
AS_CATALOG = '[[mix.source]]\ncatalog = "set/meta.json"\nweight = 3\n[[mix.source]]\nname = "c"\npath = "c"\n'


def test_entries_become_sources_with_their_roots_and_repeats() -> None:
    meta(
        a={"root": "images", "annotation": "a.jsonl", "repeat_time": 2, "length": 30, "data_augment": False},
        b={"root": "pictures/", "annotation": "b.jsonl", "repeat_time": 0.5, "length": 80},
    )
    resolved = resolve(AS_DATASET)
    a, b = resolved.sources
    assert isinstance(a, FileSource)
    assert isinstance(b, FileSource)
    assert (a.name, a.path, a.media_root, a.repeat_time, a.weight) == ("a", "a.jsonl", "images", 2.0, 0.6)
    assert (b.name, b.path, b.media_root, b.repeat_time, b.weight) == ("b", "set/b.jsonl", "set/pictures", 0.5, 0.4)
    assert resolved.notes == ()


def test_as_a_catalogue_its_weights_are_normalised_and_multiplied() -> None:
    meta(
        a={"annotation": "a.jsonl"},
        b={"annotation": "b.jsonl", "repeat_time": 4},
        off={"annotation": "a.jsonl", "repeat_time": 0},
    )
    resolved = resolve(AS_CATALOG)
    assert {source.name: source.weight for source in resolved.sources} == {"a": 1.5, "b": 1.5, "c": 1.0}
    assert resolved.notes == (
        "off: repeat_time 0, so it is left out (set/meta.json)",
        "set/meta.json: not every entry says its length, so all 2 datasets get an equal share",
    )


def test_a_json_array_stays_a_dataset() -> None:
    Path("rows.json").write_text("[]")
    (source,) = resolve('[train.train_policy]\ndataset.name = "rows.json"\n').sources
    assert source.name == "rows"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "set/meta.json: cannot be read as JSON"),
        ("[]", "set/meta.json: expected an object"),
        ("{}", "set/meta.json: no dataset with a weight above 0"),
        ('{"a": {"root": "images"}}', "set/meta.json: a: expected an object with root and annotation"),
        ('{"a": {"annotation": "no.jsonl"}}', "a: annotation: no 'no.jsonl', neither from the working directory nor"),
        ('{"a": {"annotation": "a.jsonl", "root": "no"}}', "a: root: no 'no', neither"),
        ('{"a": {"annotation": "a.jsonl", "root": 3}}', "a: root: expected a folder, got 3"),
        ('{"a": {"annotation": "a.jsonl", "repeat_time": "x"}}', "a: repeat_time: expected a number >= 0, got 'x'"),
        ('{"a": {"annotation": "a.jsonl", "repeat_time": -1}}', "a: repeat_time: expected a number >= 0, got -1"),
        ('{"a/b": {"annotation": "a.jsonl"}}', "set/meta.json: a/b: "),
    ],
)
def test_a_wrong_file_says_what_and_where(text: str, message: str) -> None:
    Path("set/meta.json").write_text(text)
    with pytest.raises(ConfigError) as error:
        resolve(AS_CATALOG)
    assert message in str(error.value)


def test_a_missing_file_is_named_where_it_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"run.toml:3: no catalogue 'set/meta.json'"):
        resolve(AS_CATALOG)
