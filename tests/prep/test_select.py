"""One question decides what a mix uses; each rule has its reason, and the first that holds is given."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vlm_catalogs.errors import DataError, StorageError
from vlm_catalogs.hashing import sample_key
from vlm_catalogs.tables import LENGTHS, SAMPLES, SELECTION
from vlm_prep.row_groups import write_table
from vlm_prep.select import Population, Rules, open_index, read_rejections, select_samples
from vlm_prep.selection_rules import Caps

COUNTS = dict.fromkeys(("text_tokens", "image_tokens", "video_tokens", "vision_patches"), 0)


def sample(name: str, **fields: Any) -> dict[str, Any]:
    keys = {"dataset": "d", "sample_id": name, "sample_key": sample_key("d", name), "status": "kept"}
    places = {"num_images": 0, "num_videos": 0, "num_alternatives": 1, "part": "p", "shard": 0, "index_in_shard": 0}
    return {**keys, **places, **fields}


def length(name: str, tokens: int, supervised: int = 1, *, alternative: int = 0, problem: str | None = None) -> Any:
    keys = {"sample_key": sample_key("d", name), "alternative": alternative, "problem": problem}
    return {**COUNTS, **keys, "total_tokens": tokens, "supervised_tokens": supervised}


def select(folder: Path, samples: list[Any], lengths: list[Any], *, fraction: float = 1, seed: int = 0) -> Any:
    write_table(pa.Table.from_pylist(samples, schema=SAMPLES), folder / "samples.parquet")
    write_table(pa.Table.from_pylist(lengths, schema=LENGTHS), folder / "lengths.parquet")
    population = Population(samples=(folder / "samples.parquet",), lengths=(folder / "lengths.parquet",))
    rules = Rules(caps=Caps(fractions={"d": fraction}), include_video=False, model_max_length=10, seed=seed)
    with open_index(folder) as index:
        return select_samples(index, population, rules).rows


def test_each_rule_gives_its_reason_and_the_first_one_wins(tmp_path: Path) -> None:
    samples = [
        sample("film", num_videos=1),
        sample("good"),
        sample("long"),
        sample("mute"),
        sample("odd"),
        sample("rejected", status="rejected", reason="missing_media"),
        sample("two", num_alternatives=2),
    ]
    lengths = [
        length("film", 99, 0),
        length("good", 10),
        length("long", 11),
        length("mute", 5, 0),
        length("odd", 0, 0, problem="unsupported_role: tool"),
        length("two", 4, 2),
        length("two", 9, 3, alternative=1),
    ]
    table = select(tmp_path, samples, lengths)
    assert table.schema.equals(SELECTION)
    rows = {row["sample_id"]: row for row in table.to_pylist()}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "film": "video_not_included",
        "good": None,
        "long": "longer_than_model_max_length",
        "mute": "no_supervised_tokens",
        "odd": "unsupported_role",
        "two": None,
    }
    assert all(row["selected"] == (row["reason"] is None) for row in rows.values())
    assert (rows["two"]["total_tokens"], rows["two"]["supervised_tokens"]) == (9, 3)
    assert list(rows) == sorted(rows)


def test_one_bad_alternative_leaves_the_sample_out(tmp_path: Path) -> None:
    lengths = [length("a", 9, 3), length("a", 4, 0, alternative=1), length("b", 9), length("b", 11, alternative=1)]
    table = select(tmp_path, [sample("a", num_alternatives=2), sample("b", num_alternatives=2)], lengths)
    assert table["reason"].to_pylist() == ["no_supervised_tokens", "longer_than_model_max_length"]


@pytest.mark.parametrize(("fraction", "expected"), [(0.25, 5), (0.5, 10), (1.0, 20)])
def test_a_fraction_is_taken_of_what_can_be_used_and_grows_with_the_fraction(
    tmp_path: Path, fraction: float, expected: int
) -> None:
    names = [f"s{number:02d}" for number in range(25)]
    samples = [sample(name) for name in names]
    lengths = [length(name, 20 if number < 5 else 5) for number, name in enumerate(names)]
    table = select(tmp_path, samples, lengths, fraction=fraction)
    chosen = {row["sample_id"] for row in table.to_pylist() if row["selected"]}
    all_chosen = {row["sample_id"] for row in select(tmp_path, samples, lengths).to_pylist() if row["selected"]}
    assert len(chosen) == expected
    assert chosen <= all_chosen
    again = select(tmp_path, samples, lengths, fraction=fraction)
    other_seed = select(tmp_path, samples, lengths, fraction=fraction, seed=1)
    assert again.equals(table)
    assert other_seed.equals(table) == (fraction == 1)


def test_equal_ids_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'a' and 'a' have one sample_key"):
        select(tmp_path, [sample("a"), sample("a")], [length("a", 5)])


def test_rejections_are_counted_by_reason_with_an_example(tmp_path: Path) -> None:
    doors = [("b", "missing_media"), ("a", "missing_media"), ("c", "media_empty")]
    samples = [sample(name, status="rejected", reason=reason, detail=f"at {name}") for name, reason in doors]
    write_table(pa.Table.from_pylist([*samples, sample("kept")], schema=SAMPLES), tmp_path / "samples.parquet")
    with open_index(tmp_path) as index:
        found = read_rejections(index, [tmp_path / "samples.parquet"])
    assert [(door.reason, door.num_samples, door.example, door.detail) for door in found] == [
        ("missing_media", 2, "a", "at a"),
        ("media_empty", 1, "c", "at c"),
    ]


def test_an_index_without_room_to_answer_is_an_error_of_the_storage(tmp_path: Path) -> None:
    samples = [sample(f"s{number:07d}") for number in range(60_000)]
    write_table(pa.Table.from_pylist(samples, schema=SAMPLES), tmp_path / "samples.parquet")
    lengths = [length(row["sample_id"], 3) for row in samples]
    write_table(pa.Table.from_pylist(lengths, schema=LENGTHS), tmp_path / "lengths.parquet")
    population = Population(samples=(tmp_path / "samples.parquet",), lengths=(tmp_path / "lengths.parquet",))
    rules = Rules(caps=Caps(fractions={"d": 1}), include_video=False, model_max_length=10, seed=0)
    with pytest.raises(StorageError, match="for lack of memory or disk"), open_index(tmp_path) as index:
        index.execute("set memory_limit = '10MB'")
        index.execute("set max_temp_directory_size = '0KB'")
        select_samples(index, population, rules)
