"""docs/equalities.md names tests that exist and are slow where it says so."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "equalities.md"
FAMILIES = {"Q": "qwen3_vl", "M": "qwen3_vl_moe", "N": "nemotron_h_omni", "E": "cosmos3_edge"}
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`( \(slow\))?")
ROWS = [line for line in PAGE.read_text().splitlines() if NAMED.search(line)]


def found_test(path: str, name: str) -> ast.FunctionDef | None:
    tree = ast.parse((TESTS / path).read_text())
    return next((one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == name), None)


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_every_row_names_one_test_that_exists_and_is_as_quick_as_it_says(row: str) -> None:
    ((path, name, slow),) = NAMED.findall(row)
    test = found_test(path, name)
    assert test is not None, f"{path}::{name} is named in {PAGE.name} and does not exist"
    marks = [ast.unparse(one) for one in test.decorator_list]
    assert ("pytest.mark.slow" in marks) is bool(slow), f"{path}::{name}: slow or not?"


def test_the_families_of_a_row_are_some_that_there_are() -> None:
    for row in ROWS:
        families = row.split("|")[2].split()
        assert families == ["any"] or "::" in row.split("|")[2] or set(families) <= FAMILIES.keys(), row


def test_every_demand_has_a_quick_test_for_at_least_one_family() -> None:
    """A page of slow tests alone would not be looked at by anyone who changes the loop."""
    for section in PAGE.read_text().split("\n## ")[1:]:
        rows = [line for line in section.splitlines() if NAMED.search(line)]
        assert any("(slow)" not in row for row in rows), section.splitlines()[0]
