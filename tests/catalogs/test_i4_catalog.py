"""An i4 weight dictionary becomes sources; everything wrong with it is one clear error."""

import ast
from pathlib import Path
from typing import Any

import pytest

from vlm_catalogs.config import Config
from vlm_catalogs.config.sections import CustomSection, MixSection
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.i4_catalog import I4Datasets, read_i4_datasets

REPOSITORY = Path(__file__).parents[2]
HEADER = "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
GOOD = "DataSource(wdinfo_path={'train': 'good/wdinfo.json'}, text_keys=['texts'], media_keys=['media'])"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(source: str = "weights.stage", *, named: bool = True, i4_root: str | None = None, **custom: Any) -> Config:
    return Config(
        path=Path("run.toml"),
        custom=CustomSection(use_i4=True, i4_data_source=source, **custom),
        mix=MixSection(i4_root=i4_root),
        lines={"custom.i4_data_source": 4, "mix.i4_root": 9} if named else {},
    )


def read(text: str, **settings: Any) -> I4Datasets:
    Path("weights.py").write_text(HEADER + text)
    return read_i4_datasets(config(**settings))


def test_a_source_carries_all_that_its_entry_says() -> None:
    datasets = read(
        "DATAINFO = {\n"
        "    'full': DataSource(\n"
        "        wdinfo_path={'train': 'a/wdinfo.json', 'val': 'a/val.json'}, text_keys=['texts', 'captions'],\n"
        "        media_keys=['media'], bucket_name='own-bucket', total_key_count=5, num_urls=None),\n"
        "    'text': DataSource({'train': 's3://other/root/wdinfo.json'}, 'texts', ['media'], text_only=True),\n"
        "    'bare': DataSource('b/wdinfo.json', ['texts'], 'pictures'),\n"
        "    'unused': DataSource({}, []),\n"
        "}\n"
        "stage = {'text': 2, 'full': 0.5, 'bare': 1}\n"
        "subsample_config = {'full': {'train': 0.5, 'val': 1}, 'unused': {'train': 0.1}}\n"
    )

    text, full, bare = datasets.sources
    assert (text.name, text.weight, text.bucket, text.wdinfo) == ("text", 2.0, "other", {"train": "root/wdinfo.json"})
    assert (text.text_keys, text.media_keys, text.text_only) == (("texts",), (), True)
    assert (full.weight, full.bucket, full.text_keys) == (0.5, "own-bucket", ("texts", "captions"))
    assert full.wdinfo == {"train": "a/wdinfo.json", "val": "a/val.json"}
    assert full.subsample == {"train": 0.5, "val": 1.0}
    assert full.origin == "weights.py:3"
    assert (bare.wdinfo, bare.media_keys, bare.bucket) == (
        {"train": "b/wdinfo.json"},
        ("pictures",),
        "nv-cosmos-zu-videos",
    )
    assert bare.subsample == {} and bare.local_root is None and not bare.text_only
    assert "bare: wdinfo_path is one path; it is read as the split 'train'" in datasets.notes


def test_the_catalogue_that_was_read_is_in_the_notes(tmp_path: Path) -> None:
    datasets = read(f"DATAINFO = {{'a': {GOOD}, 'b': {GOOD}}}\nstage = {{'a': 1}}\n")

    assert datasets.catalog_path == tmp_path / "weights.py"
    assert datasets.notes == ("i4 catalogue: weights.py, stage: 1 of 2 datasets",)


def test_a_weight_of_zero_leaves_a_dataset_out_with_a_note() -> None:
    datasets = read(f"DATAINFO = {{'a': {GOOD}, 'b': {GOOD}}}\nstage = {{'a': 1, 'b': 0}}\n")

    assert [source.name for source in datasets.sources] == ["a"]
    assert "b: weight 0, so it is left out" in datasets.notes


def test_every_wrong_dataset_is_reported_at_once_each_with_its_line() -> None:
    with pytest.raises(ConfigError) as error:
        read(
            f"DATAINFO = {{'good': {GOOD}, 'other': {GOOD}, 'odd': 5, 'splits': DataSource({{'val': 'x'}}, ['t']),\n"
            "'sub': DataSource({'train': 'x'}, ['t']), 'text': DataSource({'train': 'x'}, []), '../up': 1,\n"
            "'two': DataSource({'train': 's3://a/x', 'val': 's3://b/x'}, ['t'])}\n"
            "subsample_config = {'sub': {'train': 1.5}}\n"
            "stage = {\n"
            "    'good': -1,\n"
            "    'other': float('nan'),\n"
            "    'goood': 1,\n"
            "    'odd': 1,\n"
            "    'splits': 1,\n"
            "    'sub': 1,\n"
            "    'text': 1,\n"
            "    '../up': 1,\n"
            "    'two': True,\n"
            "}\n"
        )

    lines = str(error.value).split("\n")
    assert [line.split(": ")[0] for line in lines] == [f"weights.py:{number}" for number in range(7, 16)]
    expected = ("got -1; 0 leaves", "got nan", "did you mean 'good'?", "expected DataSource", "it has val", "got 1.5")
    for line, message in zip(lines, (*expected, "names no key", "no slash|begin with a dot", "got True"), strict=True):
        assert any(part in line for part in message.split("|")), line


@pytest.mark.parametrize("weight", ["float('inf')", "'3'", "None", "10 ** 400", "[1]", "2j"])
def test_a_weight_that_is_no_finite_number_is_refused(weight: str) -> None:
    with pytest.raises(ConfigError, match=r"weights.py:3: a: weight must be a"):
        read(f"DATAINFO = {{'a': {GOOD}}}\nstage = {{'a': {weight}}}\n")


@pytest.mark.parametrize(("weights", "state"), [("{}", "it is empty"), ("{'a': 0, 'b': 0.0}", "every weight is 0")])
def test_a_dictionary_without_a_weight_is_refused(weights: str, state: str) -> None:
    with pytest.raises(ConfigError, match=rf"weights.py:3: stage: no dataset to train on, {state}"):
        read(f"DATAINFO = {{'a': {GOOD}, 'b': {GOOD}}}\nstage = {weights}\n")


def test_what_is_not_a_dictionary_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weights.py:3: stage: expected a dictionary, got list"):
        read(f"DATAINFO = {{'a': {GOOD}}}\nstage = ['a']\n")
    with pytest.raises(ConfigError, match=r"weights.py: has no 'DATAINFO'"):
        read("stage = {'a': 1}\n")


@pytest.mark.parametrize("source", ["weights", ".stage", "weights.", "a/b.stage", "s3://x.y"])
def test_a_data_source_that_is_no_module_and_attribute_is_refused_at_its_line(source: str) -> None:
    with pytest.raises(ConfigError, match=r"run.toml:4: custom.i4_data_source: expected module.attribute"):
        read_i4_datasets(config(source))


def test_a_mirror_that_is_not_there_is_refused_at_its_line() -> None:
    with pytest.raises(ConfigError, match=r"run.toml:9: mix.i4_root: expected a folder"):
        read(f"DATAINFO = {{'a': {GOOD}}}\nstage = {{'a': 1}}\n", i4_root="nowhere")


def test_code_is_read_when_the_toml_allows_it() -> None:
    text = f"import json\nDATAINFO = {{'a': {GOOD}}}\nstage = json.loads('{{\"a\": 2}}')\n"

    with pytest.raises(ConfigError, match=r"weights.py:4: cannot be read as data: .*json"):
        read(text)
    assert read(text, allow_catalog_code=True).sources[0].weight == 2.0


def test_the_default_catalogue_is_used_with_a_note_and_agrees_with_the_demo_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(REPOSITORY)
    default = config("i4_data_utils.data_weight_default", named=False, i4_root="tests/demo_data/i4")

    datasets = read_i4_datasets(default)

    assert datasets.catalog_path == REPOSITORY / "catalogs" / "i4_data_utils.py"
    assert datasets.notes[0].startswith("no i4_data_source is named in [custom], so the default is used")
    assert [source.name for source in datasets.sources] == ["demo_clipart", "demo_photos", "demo_video"]
    for source in datasets.sources:
        wdinfo = ast.literal_eval(Path("tests/demo_data/i4", source.wdinfo["train"]).read_text())
        assert source.weight == wdinfo["total_key_count"] == sum(wdinfo["data_list_key_count"])


def test_the_default_catalogue_is_found_from_any_folder() -> None:
    datasets = read_i4_datasets(config("i4_data_utils.data_weight_default", named=False))

    assert datasets.catalog_path.name == "i4_data_utils.py"
    assert len(datasets.sources) == 3


def test_the_working_directory_can_replace_the_default_catalogue(tmp_path: Path) -> None:
    Path("i4_data_utils.py").write_text(
        HEADER + f"DATAINFO = {{'mine': {GOOD}}}\ndata_weight_default = {{'mine': 1}}\n"
    )

    datasets = read_i4_datasets(config("i4_data_utils.data_weight_default", named=False))

    assert datasets.catalog_path == tmp_path / "i4_data_utils.py"
    assert [source.name for source in datasets.sources] == ["mine"]


@pytest.mark.parametrize(
    "planted",
    [
        "stage = {'good': bomb}",
        "stage = {'good': DataSource(bomb, bomb)}",
        "stage = {'good': 1}\nDATAINFO['good'].text_keys = bomb",
        "stage = {'good': 1}\nDATAINFO['good'].bucket_name = bomb",
        "stage = {'good': 1}\nDATAINFO['good'].text_only = bomb",
        "stage = {'good': 1}\nsubsample_config = {'good': bomb}",
        "stage = {'good': 1}\nsubsample_config = {'good': {'train': bomb}}",
    ],
)
def test_a_value_that_would_print_for_ever_is_named_by_its_type(planted: str) -> None:
    """A list of itself twice, forty times over, is small to hold and 2**40 items to print."""
    bomb = "bomb = []\nfor turn in range(40):\n    bomb = [bomb, bomb]\n"

    with pytest.raises(ConfigError, match=r"weights.py:\d+: good: .* got a (list|DataSource)"):
        read(f"DATAINFO = {{'good': {GOOD}}}\n{bomb}{planted}\n")


def test_a_fraction_for_a_dataset_that_is_not_there_is_noted() -> None:
    text = f"DATAINFO = {{'good': {GOOD}}}\nstage = {{'good': 1}}\nsubsample_config = {{'goood': {{'train': 0.5}}}}\n"
    assert "subsample_config: no such dataset, so nothing reads it: 'goood'" in read(text).notes
