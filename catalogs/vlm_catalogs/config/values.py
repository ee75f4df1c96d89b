"""Does a TOML value fit a field's type? The answer is the value in Python's terms, or what was expected instead."""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
PLURALS = {bool: "booleans", int: "whole numbers", float: "numbers", str: "strings"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Limits of a number: inclusive ``low`` and ``high``, exclusive ``above`` and ``below``."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """True when ``value`` is within the limits."""
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = ((">=", self.low), (">", self.above), ("<=", self.high), ("<", self.below))
        return " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)


Count = Annotated[int, Bound(low=0)]
PositiveCount = Annotated[int, Bound(low=1)]
Fraction = Annotated[float, Bound(low=0, high=1)]
NonNegative = Annotated[float, Bound(low=0)]
Positive = Annotated[float, Bound(above=0)]
Beta = Annotated[float, Bound(low=0, below=1)]
Dtype = Literal["bfloat16", "float16", "float32"]


class Mismatch(Exception):
    """The value does not fit; the text says what would."""


def fit(hint: Any, value: object) -> Any:
    """``value`` as the field's type: lists become tuples, whole numbers become floats where floats are meant.

    Raises Mismatch.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fit_bounded(hint, value)
    if origin in (Union, types.UnionType):
        return _fit_union(hint, value)
    if origin is Literal:
        return _fit_literal(hint, value)
    if origin is tuple:
        return _fit_tuple(hint, value)
    if origin is Mapping:
        return _fit_mapping(hint, value, arguments[1])
    return _fit_plain(hint, value)


def expected(hint: Any) -> str:
    """What a field takes, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{expected(arguments[0])} {arguments[1]}"
    if origin in (Union, types.UnionType):
        narrower = {types.NoneType, int} if float in arguments else {types.NoneType}
        return " or ".join(expected(argument) for argument in arguments if argument not in narrower)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(repr(argument) for argument in arguments)
    if origin is tuple:
        if arguments[-1] is not Ellipsis:
            return f"a list of {len(arguments)}, each {expected(arguments[0])}"
        return f"a list of {PLURALS.get(arguments[0]) or 'values, each ' + expected(arguments[0])}"
    if origin is Mapping:
        each, *bound = get_args(arguments[1]) if get_origin(arguments[1]) is Annotated else (arguments[1],)
        kind = f"tables of {PLURALS[get_args(each)[1]]}" if get_origin(each) is Mapping else PLURALS[each]
        return " ".join(["a table of", kind, *map(str, bound)])
    return NOUNS[hint]


def choices(hint: Any) -> list[str]:
    """The strings that a field lists as its allowed values."""
    own = [argument for argument in get_args(hint) if isinstance(argument, str)] if get_origin(hint) is Literal else []
    return own + [choice for argument in get_args(hint) if get_origin(argument) for choice in choices(argument)]


def shown(value: object) -> str:
    """A TOML value for a message, as the user wrote it and not too long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        is_flat = value and not any(isinstance(item, dict | list) for item in value.values())
        return (
            _cut_text(f"{{{', '.join(f'{key} = {shown(item)}' for key, item in value.items())}}}")
            if is_flat
            else "a table"
        )
    if isinstance(value, list):
        return "a list" if any(isinstance(item, dict | list) for item in value) else _cut(value)
    return _cut(value) if isinstance(value, str | int | float) else str(value)


def _cut(value: object) -> str:
    return _cut_text(repr(value))


def _cut_text(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _fit_bounded(hint: Any, value: object) -> Any:
    inner, bound = get_args(hint)
    fitted = _fit_or_say(inner, value, hint)
    if isinstance(fitted, int | float) and not bound.holds(fitted):
        raise Mismatch(expected(hint))
    return fitted


def _fit_union(hint: Any, value: object) -> Any:
    for argument in sorted(get_args(hint), key=_loosest_last):
        if argument is types.NoneType:
            continue
        try:
            return fit(argument, value)
        except Mismatch:
            pass
    raise Mismatch(expected(hint))


def _loosest_last(hint: Any) -> bool:
    """A float takes a whole number too; in ``int | float`` the whole number stays one."""
    return hint is float


def _fit_literal(hint: Any, value: object) -> Any:
    if not isinstance(value, str) or value not in get_args(hint):
        raise Mismatch(expected(hint))
    return value


def _fit_tuple(hint: Any, value: object) -> tuple[Any, ...]:
    arguments = get_args(hint)
    if not isinstance(value, list):
        raise Mismatch(expected(hint))
    hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(value):
        raise Mismatch(expected(hint))
    return tuple(_fit_or_say(each, item, hint) for each, item in zip(hints, value, strict=True))


def _fit_mapping(hint: Any, value: object, each: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Mismatch(expected(hint))
    return {str(key): _fit_or_say(each, item, hint) for key, item in value.items()}


def _fit_or_say(inner: Any, value: object, outer: Any) -> Any:
    """The fitted part of a larger value; a mismatch names the whole."""
    try:
        return fit(inner, value)
    except Mismatch as error:
        raise Mismatch(expected(outer)) from error


def _fit_plain(hint: Any, value: object) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint or not _is_usable(value):
        raise Mismatch(expected(hint))
    return value


def _is_usable(value: object) -> bool:
    """False for NaN, infinities and whole numbers over 64 bits."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63
