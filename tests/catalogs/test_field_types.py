"""JSON of ours that somebody has changed is damaged, whatever it holds instead."""

from dataclasses import dataclass
from typing import Any

import pytest

from vlm_catalogs.field_types import check_fields


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Record:
    count: int
    share: float
    note: str | None
    settings: dict[str, Any]
    inner: Inner
    many: tuple[Inner, ...]


GOOD: dict[str, Any] = {
    "count": 1,
    "share": 1,
    "note": None,
    "settings": {"a": [1]},
    "inner": Inner("a"),
    "many": (Inner("b"),),
}


def test_fields_of_the_declared_types_pass() -> None:
    check_fields(Record(**GOOD))
    check_fields(Record(**{**GOOD, "share": 0.5, "note": "n", "many": ()}))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("count", "1", "count is str, expected int"),
        ("count", True, "count is bool, expected int"),
        ("count", None, "count is NoneType, expected int"),
        ("note", 7, "note is int, expected str or NoneType"),
        ("settings", [], "settings is list, expected dict"),
        ("inner", Inner(7), "name is int, expected str"),  # type: ignore[arg-type]
        ("many", (None,), "many holds NoneType, expected Inner"),
        ("many", (Inner([]),), "name is list, expected str"),  # type: ignore[arg-type]
    ],
)
def test_other_types_are_named(name: str, value: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        check_fields(Record(**{**GOOD, name: value}))
