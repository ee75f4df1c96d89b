"""The builtin functions and methods that a catalogue module may call, bounded like everything else."""

import ast
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlm_catalogs.catalog_language.arithmetic import apply_binary, format_value, is_true
from vlm_catalogs.catalog_language.limits import (
    ITERATORS,
    MAX_BITS,
    MAX_CHARACTERS,
    MAX_ITEMS,
    Budget,
    check_limit,
    refuse_code,
)
from vlm_catalogs.catalog_language.values import Builtin, NotDataError

METHODS: dict[type, str] = {
    str: "capitalize casefold center count endswith find format index isalnum isalpha isdecimal isdigit isidentifier "
    "islower isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace "
    "rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill",
    dict: "clear copy get items keys pop popitem setdefault update values",
    list: "append clear copy count extend index insert pop remove reverse sort",
    set: "add clear copy difference discard intersection isdisjoint issubset issuperset remove symmetric_difference "
    "union update",
    frozenset: "copy difference intersection isdisjoint issubset issuperset symmetric_difference union",
    tuple: "count index",
    float: "is_integer",
    int: "bit_length",
}
CONSTANT_TIME = frozenset({"add", "append", "discard", "get", "items", "keys", "setdefault", "values"})


def check_method(target: Any, name: str) -> None:
    """Raises NotDataError for a method that is not known to be pure and bounded, AttributeError for none at all."""
    if isinstance(target, Builtin) and (target.name, name) == ("dict", "fromkeys"):
        return
    refuse_code(target)
    if not hasattr(target, name):
        raise AttributeError(f"{type(target).__name__!r} object has no attribute {name!r}")
    if name not in METHODS.get(type(target), "").split():
        raise NotDataError(f"the method {type(target).__name__}.{name}()")


def call_method(budget: Budget, target: Any, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    """``target.name(...)``, after check_method."""
    if isinstance(target, Builtin):
        return _fromkeys(budget, *arguments, **named)
    bounded = BOUNDED_METHODS.get((type(target), name))
    if bounded:
        return budget.admit(bounded(budget, target, *arguments, **named))
    return _call_plain(budget, target, name, arguments, named)


def _call_plain(budget: Budget, target: Any, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    if isinstance(target, set | frozenset):
        arguments = [list(budget.iterate_hashed(one)) if isinstance(one, ITERATORS) else one for one in arguments]
    if name not in ("append", "setdefault", "insert"):
        budget.survey(*arguments, *named.values())
    elif arguments:
        budget.survey(*(() if name == "append" else arguments[:1]))
    if isinstance(target, list | tuple) and name in ("count", "index", "remove"):
        budget.survey_items(target)
    if name not in CONSTANT_TIME and not isinstance(target, int | float):
        budget.spend(len(target) // 16)
    return budget.admit(getattr(target, name)(*arguments, **named))


def _fromkeys(budget: Budget, keys: Any, value: Any = None) -> dict[Any, Any]:
    return dict.fromkeys(budget.iterate_hashed(keys), value)


def _join(budget: Budget, separator: str, parts: Any) -> str:
    texts = list(budget.iterate(parts))
    size = sum(len(text) for text in texts if isinstance(text, str)) + len(separator) * len(texts)
    check_limit(size, MAX_CHARACTERS, "characters in a text")
    return separator.join(texts)


def _replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> str:
    budget.spend(len(text) // 16)
    found = text.count(old) if count < 0 else min(count, text.count(old))
    check_limit(len(text) + found * (len(new) - len(old)), MAX_CHARACTERS, "characters in a text")
    return text.replace(old, new, count)


def _padded(name: str) -> Callable[..., str]:
    def pad(_budget: Budget, text: str, width: int, *fill: str) -> str:
        check_limit(width, MAX_CHARACTERS, "characters in a text")
        return str(getattr(text, name)(width, *fill))

    return pad


class _BoundedFormatter(string.Formatter):
    """``str.format`` without attributes, and with bounded widths."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if "." in field_name:
            raise NotDataError("a format field with an attribute")
        return super().get_field(field_name, args, kwargs)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self.budget.survey(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> str:
        return format_value(self.budget, value, format_spec)


def _format(budget: Budget, text: str, *arguments: Any, **named: Any) -> str:
    return _BoundedFormatter(budget).vformat(text, arguments, named)


def _extend(budget: Budget, target: list[Any], items: Any) -> None:
    target.extend(list(budget.iterate(items)))


def _sort(budget: Budget, target: list[Any], *, reverse: bool = False) -> None:
    _charge_sorting(budget, target)
    target.sort(reverse=reverse)


def _charge_sorting(budget: Budget, items: list[Any]) -> None:
    budget.survey(*items)
    budget.spend(len(items) * len(items).bit_length() // 8)


def _update_dict(budget: Budget, target: dict[Any, Any], /, *arguments: Any, **named: Any) -> None:
    target.update(*(pairs_of(budget, one) for one in arguments), **named)


def _update_set(budget: Budget, target: set[Any], *others: Any) -> None:
    for other in others:
        target.update(list(budget.iterate_hashed(other)))


BOUNDED_METHODS: dict[tuple[type, str], Callable[..., Any]] = {
    (str, "join"): _join,
    (str, "replace"): _replace,
    (str, "format"): _format,
    **{(str, name): _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
    (list, "extend"): _extend,
    (list, "sort"): _sort,
    (dict, "update"): _update_dict,
    (set, "update"): _update_set,
}


def pairs_of(budget: Budget, value: Any) -> Any:
    """What dict() and update() take: a dict as it is, else pairs whose keys are safe to hash."""
    if isinstance(value, dict):
        budget.spend(len(value) // 4)
        return value
    return _checked_pairs(budget, value)


def _checked_pairs(budget: Budget, value: Any) -> Iterator[tuple[Any, ...]]:
    for pair in budget.iterate(value):
        items = tuple(budget.iterate(pair))
        budget.survey(*items[:1])
        yield items


def _dict(budget: Budget, *arguments: Any, **named: Any) -> dict[Any, Any]:
    return dict(*(pairs_of(budget, one) for one in arguments), **named)


def _collected(kind: Callable[..., Any], *, hashed: bool = False) -> Callable[..., Any]:
    def collect(budget: Budget, *arguments: Any) -> Any:
        items = [(budget.iterate_hashed if hashed else budget.iterate)(one) for one in arguments]
        return kind(*items)

    return collect


def surveyed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a catalogue calls it: its arguments are walked first, so that they are small and not code."""

    def call(budget: Budget, *arguments: Any, **named: Any) -> Any:
        budget.survey(*arguments, *named.values())
        return function(*arguments, **named)

    return call


def _direct(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(_budget: Budget, *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return call


def _sorted(budget: Budget, items: Any, *, reverse: bool = False) -> list[Any]:
    copied = list(budget.iterate(items))
    _charge_sorting(budget, copied)
    return sorted(copied, reverse=reverse)


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(budget: Budget, *arguments: Any, **default: Any) -> Any:
        if "key" in default:
            raise NotDataError(f"{function.__name__}() with a key")
        items = list(budget.iterate(arguments[0])) if len(arguments) == 1 else list(arguments)
        budget.survey(*items)
        return function(items, **default) if len(arguments) == 1 else function(*items, **default)

    return call


def _sum(budget: Budget, items: Any, start: Any = 0) -> Any:
    values = list(budget.iterate(items))
    if all(isinstance(value, int | float) for value in (start, *values)):
        return sum(values, start)
    total = sum([], start)
    for value in values:
        total = apply_binary(budget, ast.Add(), total, value)
    return total


def _any(budget: Budget, items: Any) -> bool:
    return any(is_true(item) for item in budget.iterate(items))


def _all(budget: Budget, items: Any) -> bool:
    return all(is_true(item) for item in budget.iterate(items))


def _range(_budget: Budget, *arguments: Any) -> range:
    numbers = range(*arguments)
    check_limit((numbers.stop - numbers.start) // numbers.step, MAX_ITEMS, "items in a range")
    return numbers


def _enumerate(budget: Budget, items: Any, start: int = 0) -> Iterator[tuple[int, Any]]:
    return enumerate(budget.iterate(items), start)


def _zip(budget: Budget, *iterables: Any, strict: bool = False) -> Iterator[tuple[Any, ...]]:
    return zip(*(budget.iterate(one) for one in iterables), strict=strict)


def _reversed(budget: Budget, items: Any) -> Iterator[Any]:
    return budget.count(reversed(items))


def _round(budget: Budget, number: Any, ndigits: Any = None) -> Any:
    budget.survey(number)
    check_limit(abs(ndigits or 0), MAX_BITS, "digits in round()")
    return round(number, ndigits)


def _str(budget: Budget, *arguments: Any) -> str:
    budget.survey(*arguments)
    return str(*arguments)


def _bool(_budget: Budget, *arguments: Any) -> bool:
    return bool(*arguments)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": surveyed(abs),
    "all": _all,
    "any": _any,
    "bool": _bool,
    "dict": _dict,
    "enumerate": _enumerate,
    "float": surveyed(float),
    "frozenset": _collected(frozenset, hashed=True),
    "int": surveyed(int),
    "len": _direct(len),
    "list": _collected(list),
    "max": _extreme(max),
    "min": _extreme(min),
    "range": _range,
    "reversed": _reversed,
    "round": _round,
    "set": _collected(set, hashed=True),
    "sorted": _sorted,
    "str": _str,
    "sum": _sum,
    "tuple": _collected(tuple),
    "zip": _zip,
}
BUILTINS = {name: Builtin(name, call) for name, call in _FUNCTIONS.items()}


def call_builtin(budget: Budget, function: Builtin, arguments: list[Any], named: dict[str, Any]) -> Any:
    """A builtin's result, its size checked."""
    refuse_code(*arguments, *named.values())
    return budget.admit(function.call(budget, *arguments, **named))
