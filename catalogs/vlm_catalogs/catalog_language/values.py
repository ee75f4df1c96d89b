"""The values of a catalogue that are not plain Python data: DataSource, modules, and names that stand for code."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class NotDataError(Exception):
    """A construct that cannot be read as data; its text names the construct. Located by the evaluator."""


DEFAULT_MEDIA_KEYS = ("media",)
"""``media_keys`` of a DataSource that does not give it; recognised by identity, so that a note can say so."""


@dataclass
class DataSource:
    """One entry of DATAINFO: the stand-in for the original's class, with its field names."""

    wdinfo_path: Any
    """Split -> key or path of a wdinfo.json; a plain path is accepted."""
    text_keys: Any
    media_keys: Any = DEFAULT_MEDIA_KEYS
    bucket_name: Any = None
    text_only: Any = False
    total_key_count: Any = None
    """Advisory, like ``num_urls``: wdinfo.json says what is there."""
    num_urls: Any = None
    origin: str = field(default="", init=False, compare=False, repr=False)
    """``file:line`` of the call, where the module was read as data."""


SOURCE_FIELDS = tuple(one.name for one in fields(DataSource) if one.init)


def build_source(arguments: list[Any], named: dict[str, Any]) -> DataSource:
    """A DataSource from a call's arguments. Raises TypeError that names the field that is wrong."""
    for name in named.keys() - set(SOURCE_FIELDS):
        close = get_close_matches(name, SOURCE_FIELDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(SOURCE_FIELDS)}"
        raise TypeError(f"DataSource has no field {name!r}; {hint}")
    return DataSource(*arguments, **named)


@dataclass(frozen=True, eq=False)
class Opaque:
    """A name that stands for code: it may be bound, passed on and imported, but not used."""

    what: str
    """Such as ``the function url_to_category`` or ``os.environ``."""

    def attribute(self, name: str) -> object:
        """What ``x.name`` is. Raises NotDataError: the attributes of code are not data."""
        raise NotDataError(f"use of {self.what}.{name}")


class TypingName(Opaque):
    """``typing`` and what comes from it: fine wherever only types stand."""

    def attribute(self, name: str) -> object:
        """TYPE_CHECKING is False, as when a program runs; the rest are types."""
        return False if name == "TYPE_CHECKING" else TypingName(name)


class OriginalPackage(Opaque):
    """``projects.cosmos3...``, which is not here: its DataSource is ours, the rest stands for code."""

    def attribute(self, name: str) -> object:
        """DataSource, or a deeper part of the package."""
        return DataSource if name == "DataSource" else OriginalPackage(f"{self.what}.{name}")


@dataclass(frozen=True, eq=False)
class Builtin:
    """A builtin function that can be called in a catalogue."""

    name: str
    call: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class CatalogModule:
    """A catalogue file as it was read: its names in the order they were bound."""

    name: str
    path: Path | None
    """None for a folder without ``__init__.py``."""
    names: dict[str, Any]

    def public_names(self) -> list[str]:
        """What ``from module import *`` binds."""
        if "__all__" in self.names:
            return [str(name) for name in self.names["__all__"]]
        return [name for name in self.names if not name.startswith("_")]
