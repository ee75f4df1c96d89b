"""Read a TOML file: its table, and the line of each key."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

from vlm_catalogs.config.toml_lines import find_lines
from vlm_catalogs.errors import ConfigError

BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlDocument:
    """A parsed TOML; ``--set`` changes its table before it is checked."""

    table: dict[str, Any]
    lines: dict[str, int]


def read_toml(path: Path) -> TomlDocument:
    """The TOML at ``path``. Raises ConfigError, with the line where there is one, when it cannot be read."""
    text = _read_text(path)
    try:
        table = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{path}:{_error_line(error, text)}: not TOML: {_without_place(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not a TOML for this: its values are nested too deeply") from error
    return TomlDocument(table=table, lines=find_lines(text))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; name the TOML of the run") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8") from error


def _error_line(error: tomli.TOMLDecodeError, text: str) -> int:
    found = re.search(r"at line (\d+)", str(error))
    return int(found[1]) if found else text.count("\n") + 1


def _without_place(error: tomli.TOMLDecodeError) -> str:
    return re.sub(r" \(at [^)]*\)$", "", str(error))
