"""How much a catalogue may compute: steps, nesting and sizes, all checked before the work is done.

A step is one node of the syntax tree, one turn of a loop or one item that a builtin reads; copying and
formatting are charged by size. Whatever a module holds, reading it ends
within seconds and about 200 MB.
"""

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from vlm_catalogs.catalog_language.values import Builtin, CatalogModule, DataSource, NotDataError, Opaque

MAX_STEPS = 2_000_000
MAX_DEPTH = 100
"""Containers inside containers, wherever a value is hashed, compared or formatted."""
MAX_CHARACTERS = 1 << 20
MAX_ITEMS = 1_000_000
MAX_BITS = 4096
CHARACTERS_PER_STEP = 64
ITEMS_PER_STEP = 4

SCALARS = (bool, int, float, complex, type(None), str, bytes, type(...))
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
CONTAINERS: tuple[Any, ...] = (list, tuple, dict, set, frozenset, range, *VIEWS)
ITERATORS = (Generator, zip, enumerate)
CODE = (Opaque, Builtin, CatalogModule, type)


class Budget:
    """What is left of a reading's steps, shared by a catalogue and all that it imports."""

    def __init__(self, max_steps: int = MAX_STEPS) -> None:
        self.max_steps = max_steps
        self.left = max_steps

    def spend(self, steps: int = 1) -> None:
        """Count steps. Raises NotDataError when the budget is used up."""
        self.left -= steps
        if self.left < 0:
            raise NotDataError(f"it takes more than {self.max_steps:,} steps to compute")

    def admit(self, value: Any) -> Any:
        """The new value itself, its size checked and charged."""
        if isinstance(value, int):
            check_limit(value.bit_length(), MAX_BITS, "bits in an integer")
        elif isinstance(value, str | bytes):
            check_limit(len(value), MAX_CHARACTERS, "characters in a text")
            self.spend(len(value) // CHARACTERS_PER_STEP)
        elif isinstance(value, list | tuple | dict | set | frozenset):
            check_limit(len(value), MAX_ITEMS, "items in a collection")
            self.spend(len(value) // ITEMS_PER_STEP)
        return value

    def survey(self, *values: Any) -> None:
        """Walk whole values before they are hashed, compared or formatted, a step per node.

        Sharing makes a small value unfold into a huge one, and nesting overflows the stack of C code: both end here.
        """
        pending = [(value, 0) for value in values]
        while pending:
            value, depth = pending.pop()
            self.spend(1 + (len(value) // CHARACTERS_PER_STEP if isinstance(value, str | bytes) else 0))
            if isinstance(value, SCALARS):
                continue
            if depth >= MAX_DEPTH:
                raise NotDataError(f"a value nested deeper than {MAX_DEPTH}")
            pending.extend((part, depth + 1) for part in _parts(value))

    def survey_items(self, container: Any) -> None:
        """Survey what a search through a list or a tuple compares with; plain items are charged by the dozen."""
        self.spend(1 + len(container) // 16)
        self.survey(*(item for item in container if not isinstance(item, SCALARS)))

    def iterate(self, value: Any) -> Iterator[Any]:
        """The items of a value, a step each. Raises NotDataError for code and TypeError for what cannot be iterated."""
        refuse_code(value)
        kinds: tuple[Any, ...] = (str, bytes, *CONTAINERS, *ITERATORS)
        if not isinstance(value, kinds):
            raise TypeError(f"{type(value).__name__!r} object is not iterable")
        return self.count(value)

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, a step each."""
        for item in items:
            self.spend()
            yield item

    def iterate_hashed(self, value: Any) -> Iterator[Any]:
        """The items of a value that will be hashed."""
        for item in self.iterate(value):
            self.survey(item)
            yield item


def _parts(value: Any) -> list[Any]:
    if isinstance(value, range):
        return []
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, DataSource):
        return [value.wdinfo_path, value.text_keys, value.media_keys]
    if isinstance(value, CONTAINERS):
        return list(value)
    refuse_code(value)
    raise NotDataError(f"a {type(value).__name__} where a plain value is needed")


def refuse_code(*values: Any) -> None:
    """Raises NotDataError when a value stands for code."""
    for value in values:
        if isinstance(value, CODE):
            raise NotDataError(f"use of {describe_code(value)}")


def describe_code(value: Any) -> str:
    """What a value that stands for code is called in a message."""
    if isinstance(value, Opaque):
        return value.what
    if isinstance(value, CatalogModule):
        return f"the module {value.name}"
    return value.name if isinstance(value, Builtin) else str(value.__name__)


def check_limit(number: int, limit: int, what: str) -> None:
    """Raises NotDataError when a size is over its limit."""
    if number > limit:
        raise NotDataError(f"more than {limit:,} {what}")
