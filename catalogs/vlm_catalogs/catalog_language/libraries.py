"""What a catalogue may use of the standard library: ``math`` as far as it is quick, and OrderedDict, a dict here."""

import collections
import math
from types import ModuleType
from typing import Any

from vlm_catalogs.catalog_language.calls import BUILTINS, surveyed
from vlm_catalogs.catalog_language.values import Builtin, CatalogModule, Opaque

CONSTANTS = ("e", "inf", "nan", "pi", "tau")
FUNCTIONS = (
    *("acos", "asin", "atan", "atan2", "cbrt", "ceil", "copysign", "cos", "cosh", "degrees", "exp", "exp2", "expm1"),
    *("fabs", "floor", "fmod", "gcd", "hypot", "isclose", "isfinite", "isinf", "isnan", "isqrt", "log", "log10"),
    *("log1p", "log2", "pow", "radians", "remainder", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)
"""Of numbers, and quick whatever the numbers; factorial, comb, perm, prod and lcm are not."""


def library(name: str) -> CatalogModule | None:
    """A module of the standard library: what may not be used of it stands for code. None when nothing may be used."""
    if name == "math":
        return _module(math, {member: _math_member(member) for member in (*CONSTANTS, *FUNCTIONS)})
    if name == "collections":
        return _module(collections, {"OrderedDict": Builtin("OrderedDict", BUILTINS["dict"].call)})
    return None


def _module(real: ModuleType, usable: dict[str, Any]) -> CatalogModule:
    code = {name: Opaque(f"{real.__name__}.{name}") for name in vars(real) if not name.startswith("_")}
    return CatalogModule(real.__name__, None, {**code, **usable})


def _math_member(name: str) -> Any:
    member = getattr(math, name)
    return Builtin(f"math.{name}", surveyed(member)) if callable(member) else member
