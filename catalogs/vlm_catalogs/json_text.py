"""JSON in one spelling: what is written is ``json.dumps`` with its defaults, what is read is checked to be storable."""

import json
import math
from _json import make_encoder
from collections.abc import Iterable
from typing import Any, NoReturn

import orjson

MAX_DEPTH = 200
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONG_DIGITS = b"0" * len(str(-MIN_INTEGER))
DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")

_ENCODER = json.JSONEncoder()
_ENCODE = make_encoder(
    None, _ENCODER.default, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True
)
"""What ``json.dumps`` makes anew for each text (CPython, json/encoder.py, iterencode), which takes longer than encoding
a small one. It looks for no circular references: the values here are trees."""


def dumps(value: Any) -> str:
    """Canonical text: ``json.dumps`` defaults, key order kept."""
    return "".join(_ENCODE(value, 0))


def dumps_indented(value: Any) -> str:
    """Text for people to read as well: indented by 2, with a final newline."""
    return json.dumps(value, indent=2) + "\n"


def loads(text: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text: orjson where it can, the standard library for what it refuses.

    A UTF-8 byte order mark is passed over; of two equal keys the last one counts, as both parsers have it.

    Raises ValueError, with a reason in its text, for what semantics A7 does not store: broken JSON, invalid UTF-8, NaN,
    infinities, lone surrogates, integers over 64 bit, nesting over 200.
    """
    content = _utf8(text).removeprefix(BYTE_ORDER_MARK)
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = _careful_loads(content)
    else:
        if LONG_DIGITS in content.translate(DIGITS_TO_ZERO):  # orjson reads an integer over 64 bit as a float
            value = _careful_loads(content)
    if content.count(b"[") + content.count(b"{") > MAX_DEPTH and _is_deep(value):
        _refuse_depth()
    return value


def _utf8(text: bytes | bytearray | memoryview | str) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        return bytes(text)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"lone surrogate at character {error.start}") from error


def _careful_loads(content: bytes) -> Any:
    """The value by the standard library, which says exactly what is wrong."""
    try:
        text = content.decode()
        value = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON: {error}") from error
    except RecursionError:
        _refuse_depth()
    if "\\u" in text and not _is_encodable(value):
        raise ValueError("lone surrogate in a string")
    return value


def _integer(digits: str) -> int:
    is_short = len(digits) <= len(LONG_DIGITS) + 2
    if is_short and MIN_INTEGER <= (value := int(digits)) <= MAX_INTEGER:
        return value
    raise ValueError(f"integer over 64 bit: {digits[:40]}")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"number over the range of a double: {digits[:40]}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_depth() -> NoReturn:
    raise ValueError(f"nested deeper than {MAX_DEPTH}") from None


def _is_encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    except RecursionError:
        _refuse_depth()
    return True


def _is_deep(value: Any) -> bool:
    """Whether ``value`` nests over MAX_DEPTH, found level by level, so without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
    return any(isinstance(node, (list, dict)) for node in level)


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, list):
        return node
    return node.values() if isinstance(node, dict) else ()
