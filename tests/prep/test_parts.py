"""Parts are cut from names and sizes alone."""

import json
from pathlib import Path

import pytest

from vlm_catalogs.errors import DataError
from vlm_prep.content_ids import map_file
from vlm_prep.file_inputs import array_ranges, jsonl_ranges, range_elements
from vlm_prep.parts import MIB, PartInput, cut_tars, plan_part

TARS = [(f"part_000000/{number:06d}.tar", 50 * MIB) for number in range(60)]


def test_no_tar_is_lost_and_no_part_is_larger_than_needed() -> None:
    runs = cut_tars(TARS)
    assert [path for run in runs for path in run] == [path for path, _ in TARS]
    assert all(len(run) <= 11 for run in runs)
    assert all(len(run) >= 3 for run in runs[:-1])


def test_an_inserted_tar_moves_only_its_neighbours() -> None:
    before = cut_tars(TARS)
    after = cut_tars([*TARS[:7], ("part_000000/inserted.tar", 50 * MIB), *TARS[7:]])
    changed = [run for run in after if run not in before]
    assert len(changed) <= 3
    assert len(after) > 6


def test_one_giant_tar_is_a_part_of_its_own() -> None:
    assert cut_tars([("a.tar", 2000 * MIB), ("b.tar", 1)]) == [["a.tar"], ["b.tar"]]
    assert cut_tars([]) == []


def test_the_name_of_a_part_follows_its_content_and_not_its_place() -> None:
    tar = PartInput(name="texts/a.tar", path="/here/a.tar", bytes=3, content_id="x", entry="a.tar", key="texts")
    moved = PartInput(name="texts/a.tar", path="/there/a.tar", bytes=3, content_id="x", entry="a.tar", key="texts")
    other = PartInput(name="texts/a.tar", path="/here/a.tar", bytes=3, content_id="y", entry="a.tar", key="texts")
    assert plan_part([tar]).name == plan_part([moved]).name != plan_part([other]).name


def test_ranges_of_jsonl_start_after_a_newline_and_count_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"number": number, "text": "x" * (number % 37)}) for number in range(300)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    ranges = list(jsonl_ranges(path, part_bytes=1000))
    content = path.read_bytes()
    assert len(ranges) > 5
    assert b"".join(content[begin:end] for begin, end, _ in ranges) == content
    for begin, _, row in ranges:
        assert json.loads(content[begin:].splitlines()[0])["number"] == row


def test_appending_to_jsonl_changes_only_the_last_range(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 500)
    before = list(jsonl_ranges(path, part_bytes=1000))
    path.write_text('{"a": 1}\n' * 600)
    assert list(jsonl_ranges(path, part_bytes=1000))[: len(before) - 1] == before[:-1]


def test_ranges_of_an_array_hold_whole_elements(tmp_path: Path) -> None:
    rows = [
        {"id": number, "text": 'a ] , } [ { " \\ é' * (number % 3), "deep": [[1], {"x": [2]}]} for number in range(25)
    ]
    path = tmp_path / "a.json"
    path.write_text(" " + json.dumps(rows, indent=1) + "\n")
    content = map_file(path)
    ranges = list(array_ranges(path, part_rows=10))
    assert [row for _, _, row in ranges] == [0, 10, 20]
    found = [
        json.loads(bytes(content[begin:end][first:last]))
        for begin, end, _ in ranges
        for first, last in range_elements(content[begin:end])
    ]
    assert found == rows


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a"', '{"a": 1}', '[{"a": 1}] [2]', "", '"[]"', '[{"a": 1}] x', 'x [{"a": 1}]']
)
def test_what_is_not_one_whole_array_stops_with_the_offset(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json: byte \d+"):
        list(array_ranges(path))


def test_an_empty_array_has_no_range(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(" [ ]\n")
    assert list(array_ranges(path)) == []
