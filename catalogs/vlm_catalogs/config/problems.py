"""Everything that is wrong with a TOML, collected before it is reported."""

from collections.abc import Sequence
from pathlib import Path

from vlm_catalogs.config.sections import FROM_COMMAND_LINE
from vlm_catalogs.config.toml_lines import dotted
from vlm_catalogs.errors import ConfigError


class Problems:
    """Problems by key; the first one of a key, or of a table around it, stands."""

    def __init__(self, path: Path, lines: dict[str, int]) -> None:
        self.path = path
        self.lines = lines
        self._found: dict[str, str] = {}

    def add(self, keys: Sequence[str | int] | str, text: str) -> None:
        """Report ``text`` for a key, unless that key or a table around it has a problem already."""
        key = keys if isinstance(keys, str) else dotted(keys)
        if not any(key == known or key.startswith(f"{known}.") for known in self._found):
            self._found[key] = text

    def line(self, keys: Sequence[str | int] | str) -> int:
        """Line of a key, else of the nearest table around it, else 0."""
        key = keys if isinstance(keys, str) else dotted(keys)
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key, FROM_COMMAND_LINE)

    def raise_all(self) -> None:
        """Raise ConfigError with all problems in the order of the file; do nothing when there is none."""
        if self._found:
            found = sorted(self._found.items(), key=lambda item: self.line(item[0]))
            raise ConfigError("\n".join(f"{self._place(key)}: {key}: {text}" for key, text in found))

    def _place(self, key: str) -> str:
        if self.lines.get(key) == FROM_COMMAND_LINE:
            return "--set"
        line = self.line(key)
        return f"{self.path}:{line}" if line else str(self.path)
