"""``--set section.key=value``: put values of the command line into a TOML's table, to be checked like the file."""

from collections.abc import Sequence
from typing import Any

import tomli

from vlm_catalogs.config.problems import Problems
from vlm_catalogs.config.sections import FROM_COMMAND_LINE
from vlm_catalogs.config.toml_file import TomlDocument
from vlm_catalogs.config.toml_lines import dotted
from vlm_catalogs.errors import ConfigError

QUOTES_AND_BRACKETS = ('"', "'", "[", "{")


def apply_overrides(document: TomlDocument, overrides: Sequence[str], problems: Problems) -> None:
    """Set each override in the document's table; a later one wins."""
    for override in overrides:
        names, value = _parse(override)
        _forget_lines(document.lines, dotted(names))
        if _put(document.table, names, value):
            _set_lines(document.lines, names, value)
            _set_lines_of_new_tables(document.lines, names)
        else:
            document.lines[dotted(names)] = FROM_COMMAND_LINE
            problems.add(names, "a value stands above this key; set that one")


def _parse(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    names = _parse_key(key) if equals else None
    if not names:
        raise ConfigError(f"--set: {override!r}: expected section.key=value, such as train.epoch=3")
    return names, _parse_value(text.strip(), override)


def _parse_key(key: str) -> list[str] | None:
    try:
        table = tomli.loads(f"{key.strip()} = 0") if "\n" not in key else {}
    except tomli.TOMLDecodeError:
        return None
    names: list[str] = []
    while isinstance(table, dict) and table:
        name, table = next(iter(table.items()))
        names.append(name)
    return names


def _parse_value(text: str, override: str) -> Any:
    """A TOML value; a bare word that is none, such as a path, is a string."""
    try:
        table = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError as error:
        if not text or text.startswith(QUOTES_AND_BRACKETS) or "\n" in text:
            raise ConfigError(f"--set: {override!r}: the value is not TOML: {error}") from error
        return text
    if table.keys() != {"value"}:
        raise ConfigError(f"--set: {override!r}: expected one value")
    return table["value"]


def _put(table: dict[str, Any], names: Sequence[str], value: Any) -> bool:
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            return False
    table[names[-1]] = value
    return True


def _forget_lines(lines: dict[str, int], key: str) -> None:
    """What stood under a replaced key stands nowhere any more."""
    for old in [line for line in lines if line == key or line.startswith((f"{key}.", f"{key}["))]:
        del lines[old]


def _set_lines_of_new_tables(lines: dict[str, int], names: Sequence[str]) -> None:
    for length in range(1, len(names)):
        lines.setdefault(dotted(names[:length]), FROM_COMMAND_LINE)


def _set_lines(lines: dict[str, int], path: Sequence[str | int], value: Any) -> None:
    lines[dotted(path)] = FROM_COMMAND_LINE
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inner:
        _set_lines(lines, (*path, step), item)
