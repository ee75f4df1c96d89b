"""Dataclasses of which conversion makes a dozen for every sample."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen_by_types(cls: type[Class]) -> type[Class]:
    """A slotted dataclass whose fields the type checker alone keeps from being assigned.

    A dataclass that is frozen at run time as well takes more than twice as long to make: each field is set by a call.
    Where one is made for every sample, its fields are given by position: by name, it takes twice as long again.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
