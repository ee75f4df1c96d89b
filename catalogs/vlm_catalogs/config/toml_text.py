"""Write a Config as TOML that loads to an equal Config."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vlm_catalogs.config.toml_lines import dotted

if TYPE_CHECKING:
    from vlm_catalogs.config.sections import Config


def config_text(config: "Config") -> str:
    """Every setting that has a value; None is a key left out."""
    return "\n".join(_section_lines(config, ())).lstrip("\n") + "\n"


def _section_lines(section: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Plain values first: in TOML they belong to the table whose header stands above them."""
    settings = [field.name for field in dataclasses.fields(section) if field.compare]
    values = {name: value for name in settings if (value := getattr(section, name)) is not None}
    for name, value in values.items():
        if not dataclasses.is_dataclass(value) and not _is_tables(value):
            yield f"{dotted((name,))} = {_value_text(value)}"
    for name, value in values.items():
        if dataclasses.is_dataclass(value):
            yield from ("", f"[{dotted((*path, name))}]", *_section_lines(value, (*path, name)))
        elif _is_tables(value):
            for each in value:
                yield from ("", f"[[{dotted((*path, name))}]]", *_section_lines(each, (*path, name)))


def _is_tables(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and dataclasses.is_dataclass(value[0])


def _value_text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return _string_text(value)
        case Mapping():
            return "{" + ", ".join(f"{dotted((key,))} = {_value_text(item)}" for key, item in value.items()) + "}"
        case tuple():
            return "[" + ", ".join(_value_text(item) for item in value) + "]"
    raise AssertionError(f"no TOML for {value!r}")


def _string_text(text: str) -> str:
    """A basic string; JSON escapes are TOML escapes but for DEL, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
