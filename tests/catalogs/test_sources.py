"""A TOML names datasets in several ways; they end as one list on one scale of weights."""

from pathlib import Path

import pytest

from vlm_catalogs.config import load_config
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.source import FileSource, I4Source
from vlm_catalogs.sources import ResolvedSources, resolve_sources

HEADER = "from projects.cosmos3.vlm.datasets.utils import DataSource\n"
MODEL = '[policy]\nmodel_name_or_path = "Qwen/Qwen3-VL-8B-Instruct"\n'
I4 = '[custom]\nuse_i4 = true\ni4_data_source = "weights.stage"\n'


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        Path(name).mkdir()
    Path("weights.py").write_text(
        HEADER + "DATAINFO = {'i': DataSource({'train': 'w'}, ['t'], ['m'])}\nstage = {'i': 3}\n"
    )


def resolve(text: str) -> ResolvedSources:
    Path("run.toml").write_text(text)
    return resolve_sources(load_config(Path("run.toml")))


def weights_of(resolved: ResolvedSources) -> dict[str, float]:
    return {source.name: source.weight for source in resolved.sources}


def dataset(name: str) -> str:
    return f'[train.train_policy]\ndataset.name = "{name}"\n'


def beside(name: str, rest: str = "") -> str:
    return f'[[mix.source]]\nname = "{name}"\npath = "{name}"\n{rest}\n'


def test_a_dataset_of_the_training_policy_is_called_like_its_folder() -> None:
    resolved = resolve(MODEL + dataset("./a/"))

    (source,) = resolved.sources
    assert isinstance(source, FileSource)
    assert (source.name, source.format, source.weight, source.origin) == ("a", "auto", 1.0, "run.toml:4")
    assert resolved.catalog_path is None


def test_a_dataset_file_is_called_like_its_stem() -> None:
    Path("talks.v2.jsonl").write_text("")

    assert list(weights_of(resolve(MODEL + dataset("talks.v2.jsonl")))) == ["talks.v2"]


def test_sources_stand_beside_the_dataset_and_beside_i4() -> None:
    assert weights_of(resolve(MODEL + dataset("a") + beside("b", "weight = 2.5"))) == {"a": 1.0, "b": 2.5}

    resolved = resolve(MODEL + I4 + beside("b", "weight = 2"))
    assert weights_of(resolved) == {"i": 3.0, "b": 2.0}
    assert isinstance(resolved.sources[0], I4Source)
    assert resolved.catalog_path == Path.cwd() / "weights.py"


def test_with_i4_the_dataset_of_the_training_policy_is_not_read_and_that_is_said() -> None:
    Path("run.toml").write_text(MODEL + dataset("absent") + I4)
    config = load_config(Path("run.toml"))

    assert weights_of(resolve_sources(config)) == {"i": 3.0}
    assert any("dataset is not read" in note for note in config.notes)


def test_a_catalogue_can_be_the_dataset_or_stand_beside_it() -> None:
    Path("more.toml").write_text(
        '[[source]]\nname = "b"\npath = "b"\nweight = 30\n[[source]]\nname = "c"\npath = "c"\nweight = 10\n'
    )

    assert weights_of(resolve(MODEL + dataset("more.toml"))) == pytest.approx({"b": 0.75, "c": 0.25})
    both = MODEL + dataset("a") + '[[mix.source]]\ncatalog = "more.toml"\nweight = 4\n'
    assert weights_of(resolve(both)) == pytest.approx({"a": 1.0, "b": 3.0, "c": 1.0})


def test_a_dataset_reached_twice_is_one_with_its_weights_added_and_a_note() -> None:
    Path("more.toml").write_text('[[source]]\nname = "b"\npath = "./b/"\n')

    resolved = resolve(MODEL + beside("b", "weight = 2") + '[[mix.source]]\ncatalog = "more.toml"\nweight = 3\n')

    assert weights_of(resolved) == {"b": 5.0}
    assert "b: named at run.toml:3 and at more.toml:1; one dataset, weights added" in resolved.notes


@pytest.mark.parametrize("other", ['path = "c"', 'path = "b"\nformat = "llava"', 'path = "b"\nmedia_root = "a"'])
def test_one_name_for_two_datasets_is_refused(other: str) -> None:
    with pytest.raises(ConfigError, match=r"run.toml:7: b: run.toml:3 gives that name to another dataset"):
        resolve(MODEL + beside("b") + f'[[mix.source]]\nname = "b"\n{other}\n')


def test_a_name_of_an_i4_dataset_cannot_be_given_to_another() -> None:
    with pytest.raises(ConfigError, match=r"i: weights.py:2 gives that name to another dataset"):
        resolve(MODEL + I4 + '[[mix.source]]\nname = "i"\npath = "a"\n')


def test_the_same_wdinfo_under_two_names_is_fine() -> None:
    Path("weights.py").write_text(
        HEADER
        + "one = DataSource({'train': 'w'}, ['t'], ['m'])\nDATAINFO = {'i': one, 'j': one}\nstage = {'i': 1, 'j': 2}\n"
    )

    assert weights_of(resolve(MODEL + I4)) == {"i": 1.0, "j": 2.0}


def test_a_hub_id_says_that_it_has_to_be_downloaded() -> None:
    with pytest.raises(
        ConfigError, match=r"run.toml:4: .*'org/data'; datasets of a hub are not built yet: download it"
    ):
        resolve(MODEL + dataset("org/data"))


def test_a_toml_that_names_no_data_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"run.toml: names no data; write \[train.train_policy\] dataset.name"):
        resolve(MODEL)


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(ConfigError, match="every weight is 0"):
        resolve(MODEL + beside("a", "weight = 0"))


def test_weights_too_large_to_add_are_refused() -> None:
    with pytest.raises(ConfigError, match="too large to be added up"):
        resolve(MODEL + beside("a", "weight = 1e308") + beside("b", "weight = 1e308"))


def test_problems_of_i4_and_of_other_sources_are_reported_together() -> None:
    Path("weights.py").write_text(HEADER + "DATAINFO = {}\nstage = {'i': 3}\n")

    with pytest.raises(ConfigError) as error:
        resolve(MODEL + I4 + '[[mix.source]]\nname = "x"\npath = "absent"\n')

    assert "weights.py:3: i: is not in DATAINFO" in str(error.value)
    assert "run.toml:6: x: no file or folder 'absent'" in str(error.value)
