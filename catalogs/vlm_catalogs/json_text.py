"""JSON in one spelling: what is written is ``json.dumps`` with its defaults, what is read is checked to be storable."""

import json
import math
from typing import Any

import orjson

MAX_DEPTH = 200
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1


def dumps(value: Any) -> str:
    """Canonical text: ``json.dumps`` defaults, key order kept."""
    return json.dumps(value)


def dumps_indented(value: Any) -> str:
    """Text for people to read as well: indented by 2, with a final newline."""
    return json.dumps(value, indent=2) + "\n"


def loads(text: bytes | bytearray | memoryview | str) -> Any:
    """The value of a JSON text: orjson where it can, the standard library for what it refuses.

    Raises ValueError, with a reason in its text, for what semantics A7 does not store: broken JSON, NaN and infinities,
    lone surrogates, integers over 64 bit, nesting over 200.
    """
    raise NotImplementedError
