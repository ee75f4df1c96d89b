"""Catalogues of normal datasets: weights of nested files, and errors with their line."""

from pathlib import Path

import pytest

from vlm_catalogs.dataset_name import name_problem
from vlm_catalogs.errors import ConfigError
from vlm_catalogs.toml_catalog import FileDatasets, read_toml_catalog

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        Path(name).mkdir()


def write(name: str, *tables: str) -> Path:
    path = Path(name)
    path.write_text("".join(f"[[source]]\n{table.strip()}\n" for table in tables))
    return path


def source(name: str, rest: str = "") -> str:
    return f'name = "{name}"\npath = "{name}"\n{rest}'


def read(path: Path, weight: float = 1.0) -> FileDatasets:
    return read_toml_catalog(path, weight=weight, named_by="run.toml:7")


def weights_of(datasets: FileDatasets) -> dict[str, float]:
    return {one.name: one.weight for one in datasets.sources}


def test_a_source_carries_all_that_its_table_says() -> None:
    path = write(
        "all.toml", source("a", 'format = "llava"\nmedia_root = "b"\nrepeat_time = 0.5\nweight = 3\ncolumns.id = "key"')
    )

    (found,) = read(path).sources

    assert (found.path, found.format, found.media_root, found.repeat_time) == ("a", "llava", "b", 0.5)
    assert (found.weight, found.origin, found.columns) == (1.0, "all.toml:1", {"id": "key"})


def test_weights_of_a_nested_catalogue_are_normalised_and_multiplied_by_the_outer_one() -> None:
    write("inner.toml", source("a", "weight = 30"), source("b", "weight = 10"))
    outer = write("outer.toml", source("c", "weight = 1"), 'catalog = "inner.toml"\nweight = 3')

    assert weights_of(read(outer, weight=8)) == pytest.approx({"c": 2.0, "a": 4.5, "b": 1.5})


def test_a_dataset_reached_along_two_ways_appears_along_both() -> None:
    write("inner.toml", source("a"))
    outer = write("outer.toml", source("a"), 'catalog = "inner.toml"')

    assert [(one.name, one.weight) for one in read(outer).sources] == [("a", 0.5), ("a", 0.5)]


def test_a_weight_of_zero_leaves_a_source_or_a_catalogue_out_with_a_note() -> None:
    outer = write("outer.toml", source("a"), source("b", "weight = 0"), 'catalog = "absent.toml"\nweight = 0.0')

    datasets = read(outer)

    assert weights_of(datasets) == {"a": 1.0}
    assert datasets.notes == (
        "b: weight 0, so it is left out (outer.toml:4)",
        "absent.toml: weight 0, so it is left out (outer.toml:8)",
    )


def test_catalogues_that_name_each_other_are_refused() -> None:
    write("one.toml", 'catalog = "two.toml"')
    write("two.toml", source("a"), 'catalog = "./one.toml"')

    with pytest.raises(ConfigError, match=r"two.toml:4: catalogues name each other: one.toml -> two.toml -> one.toml"):
        read(Path("one.toml"))


def test_every_mistake_is_reported_with_its_line() -> None:
    path = write(
        "wrong.toml",
        'name = "a"\npath = "a"\nwieght = 1',
        'name = "a"\npath = 3',
        'path = "a"\nweight = -1',
        'catalog = "x.toml"\nname = "b"',
        'name = "b"\npath = "b"\nformat = "csv"\nrepeat_time = true',
    )

    with pytest.raises(ConfigError) as error:
        read(path)

    expected = {
        4: "source[0].wieght: unknown key; did you mean 'weight'?",
        7: "source[1].path: expected a string, got 3",
        10: "source[2].weight: expected a number >= 0, got -1",
        8: "source[2]: name missing;",
        11: "source[3]: expected catalog and weight only, got name too",
        17: "source[4].format: expected one of 'auto', 'jsonl', 'llava', ",
        18: "source[4].repeat_time: expected a number > 0, got true",
    }
    for line, message in expected.items():
        assert f"wrong.toml:{line}: {message}" in str(error.value)
    assert len(str(error.value).split("\n")) == len(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[source]]\nname='a'\npath='a'\nweight=1e308\n" * 2, "wrong.toml: the weights are too large"),
        ("", "wrong.toml: no dataset with a weight above 0"),
        ("[source]\nname = 'a'\n", "wrong.toml:1: source: expected [[source]] tables"),
        ("x = 1\n", "wrong.toml:1: x: unknown key"),
        ("[[source]\n", "wrong.toml:1: not TOML"),
        ("[[source]]\nname = 'a'\npath = 'absent'\n", "wrong.toml:1: a: no file or folder 'absent'"),
        ("[[source]]\nname = 'a'\npath = 'a'\nmedia_root = 'no'\n", "wrong.toml:1: a: media_root: no folder 'no'"),
        ("[[source]]\nname = '..'\npath = 'a'\n", "wrong.toml:1: a dataset's name must not begin with a dot"),
        (
            "[[source]]\nname = 'a'\npath = 'a'\ncolumns = {message = 'chat'}\n",
            "wrong.toml:1: a: columns: unknown name 'message'; did you mean 'messages'?",
        ),
        (
            "[[source]]\nname = 'a'\npath = 'a'\ncolumns = {messages = 3}\n",
            "wrong.toml:4: source[0].columns: expected a",
        ),
        ("[[source]]\ncatalog = 'absent.toml'\n", "wrong.toml:1: no catalogue 'absent.toml'"),
    ],
)
def test_a_wrong_catalogue_says_what_and_where(text: str, message: str) -> None:
    Path("wrong.toml").write_text(text)

    with pytest.raises(ConfigError) as error:
        read(Path("wrong.toml"))

    assert message in str(error.value)


def test_a_missing_catalogue_is_reported_at_the_place_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"run.toml:7: no catalogue 'absent.toml'"):
        read(Path("absent.toml"))


@pytest.mark.parametrize(
    "name", ["", " ", "a ", ".", "..", ".staging", "a/b", "a\\b", "a\0", "a\n", "x" * 256, 3, None]
)
def test_a_name_that_cannot_be_a_folder_is_refused(name: object) -> None:
    assert name_problem(name) is not None


@pytest.mark.parametrize("name", ["docs", "docs-v1.2", "a b", "Ünïcode", "x" * 200, "a:b@c"])
def test_ordinary_names_are_fine(name: str) -> None:
    assert name_problem(name) is None


def test_the_catalogue_of_the_demo_names_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)

    datasets = read(Path("catalogs/demo.toml"))

    total = sum(len(Path(one.path).read_text().splitlines()) for one in datasets.sources)
    for one in datasets.sources:
        assert one.weight == pytest.approx(len(Path(one.path).read_text().splitlines()) / total)
