"""Operators of catalogue modules: Python's own, each with its result bounded before it is computed."""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from vlm_catalogs.catalog_language.limits import (
    MAX_BITS,
    MAX_CHARACTERS,
    MAX_ITEMS,
    Budget,
    check_limit,
    refuse_code,
)
from vlm_catalogs.catalog_language.values import NotDataError

Operation = Callable[[Any, Any], Any]

BINARY: dict[type[ast.operator], tuple[Operation, Operation]] = {
    ast.Add: (operator.add, operator.iadd),
    ast.Sub: (operator.sub, operator.isub),
    ast.Mult: (operator.mul, operator.imul),
    ast.Div: (operator.truediv, operator.itruediv),
    ast.FloorDiv: (operator.floordiv, operator.ifloordiv),
    ast.Mod: (operator.mod, operator.imod),
    ast.Pow: (operator.pow, operator.ipow),
    ast.LShift: (operator.lshift, operator.ilshift),
    ast.RShift: (operator.rshift, operator.irshift),
    ast.BitOr: (operator.or_, operator.ior),
    ast.BitXor: (operator.xor, operator.ixor),
    ast.BitAnd: (operator.and_, operator.iand),
}
"""Operator -> what ``x + y`` does, and what ``x += y`` does."""

UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}

COMPARISONS: dict[type[ast.cmpop], Operation] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

SEQUENCES = (str, bytes, list, tuple)


def apply_binary(budget: Budget, kind: ast.operator, left: Any, right: Any, *, in_place: bool = False) -> Any:
    """``left <op> right``; ``in_place`` changes a left that can be changed, as ``+=`` does."""
    refuse_code(left, right)
    if type(kind) not in BINARY:
        raise NotDataError("the operator @")
    _bound_result(budget, kind, left, right)
    if in_place and isinstance(kind, ast.Add) and isinstance(left, list):
        right = list(budget.iterate(right))
    return budget.admit(BINARY[type(kind)][in_place](left, right))


def _bound_result(budget: Budget, kind: ast.operator, left: Any, right: Any) -> None:
    if isinstance(kind, ast.Mult):
        _bound_repetition(left, right)
        _bound_repetition(right, left)
    elif isinstance(kind, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        check_limit(left.bit_length() * max(right, 0) if abs(left) > 1 else 0, MAX_BITS, "bits in an integer")
    elif isinstance(kind, ast.LShift) and isinstance(left, int) and isinstance(right, int):
        check_limit(right, MAX_BITS, "bits in an integer")
    elif isinstance(kind, ast.Mod) and isinstance(left, str | bytes):
        bound_percent_format(left)
        budget.survey(right)


def _bound_repetition(sequence: Any, times: Any) -> None:
    if isinstance(sequence, SEQUENCES) and isinstance(times, int):
        is_text = isinstance(sequence, str | bytes)
        limit, what = (MAX_CHARACTERS, "characters in a text") if is_text else (MAX_ITEMS, "items in a collection")
        check_limit(len(sequence) * times, limit, what)


def bound_percent_format(template: str | bytes) -> None:
    """Refuses widths of five digits and widths taken from the values, either of which could ask for gigabytes."""
    text = template if isinstance(template, str) else template.decode("latin-1")
    if re.search(r"%(\([^)]*\))?[^a-zA-Z%]*(\*|\d{5})", text):
        raise NotDataError("a % format with a width over 9,999 or a width of *")


def format_value(budget: Budget, value: Any, spec: str) -> str:
    """``format(value, spec)``, its width bounded."""
    if re.search(r"\d{5}", spec):
        raise NotDataError("a format with a width over 9,999")
    budget.survey(value)
    return str(budget.admit(format(value, spec)))


def apply_unary(kind: ast.unaryop, value: Any) -> Any:
    """``-x``, ``+x``, ``~x`` or ``not x``."""
    return not is_true(value) if isinstance(kind, ast.Not) else UNARY[type(kind)](_plain(value))


def _plain(value: Any) -> Any:
    refuse_code(value)
    return value


def is_true(value: Any) -> bool:
    """The truth of a value; code has none here."""
    return bool(_plain(value))


def compare(budget: Budget, kind: ast.cmpop, left: Any, right: Any) -> Any:
    """One comparison of a chain."""
    if isinstance(kind, ast.In | ast.NotIn):
        return is_member(budget, left, right) is isinstance(kind, ast.In)
    if isinstance(kind, ast.Is | ast.IsNot):
        return _is_same(left, right) is isinstance(kind, ast.Is)
    budget.survey(left, right)
    return COMPARISONS[type(kind)](left, right)


def is_member(budget: Budget, item: Any, container: Any) -> bool:
    """``item in container``."""
    refuse_code(item, container)
    budget.survey(item)
    if isinstance(container, str | bytes):
        budget.spend(len(container) // 64)
    elif isinstance(container, list | tuple):
        budget.survey_items(container)
    elif not isinstance(container, dict | set | frozenset | range | type({}.keys())):
        return any(one is item or one == item for one in budget.iterate_hashed(container))
    return bool(item in container)


def _is_same(left: Any, right: Any) -> bool:
    """``left is right``, where that does not hang on how Python stores values: with None, True and False only."""
    refuse_code(left, right)
    if not any(isinstance(value, bool | type(None)) for value in (left, right)):
        raise NotDataError("`is` between values other than None, True and False")
    return left is right
