"""Do the fields of a dataclass that was read from JSON have the types that it declares?"""

from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints


class _Wanted(NamedTuple):
    """One field: what it may be, and what its items may be where it is a tuple of any length."""

    name: str
    types: tuple[type, ...]
    items: tuple[type, ...]


def check_fields(record: object) -> None:
    """Raise TypeError, naming the field, where one of ``record``, or of dataclasses in it, is of another type."""
    kind: Any = type(record)
    for name, types, items in _wanted(kind):
        value = getattr(record, name)
        if not _is_one_of(value, types):
            raise TypeError(f"{name} is {type(value).__name__}, expected {' or '.join(one.__name__ for one in types)}")
        if items and value is not None:
            for item in value:
                if not _is_one_of(item, items):
                    raise TypeError(f"{name} holds {type(item).__name__}, expected {items[0].__name__}")
                if is_dataclass(item):
                    check_fields(item)
        elif is_dataclass(value):
            check_fields(value)


def _is_one_of(value: object, types: tuple[type, ...]) -> bool:
    """A truth value is no number; a whole number is one with a fraction too."""
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (isinstance(value, int) and float in types)


@cache
def _wanted(record: Any) -> tuple[_Wanted, ...]:
    hints = get_type_hints(record)
    return tuple(_Wanted(field.name, _types(hints[field.name]), _items(hints[field.name])) for field in fields(record))


def _types(hint: Any) -> tuple[type, ...]:
    if isinstance(hint, UnionType):
        return tuple(kind for one in get_args(hint) for kind in _types(one))
    return (get_origin(hint) or hint or NoneType,)


def _items(hint: Any) -> tuple[type, ...]:
    return _types(get_args(hint)[0]) if get_origin(hint) is tuple else ()
