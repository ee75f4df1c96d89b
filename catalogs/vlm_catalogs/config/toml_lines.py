"""On which line does each key of a TOML stand? A parser says what a file means; this says where.

It scans text that a TOML parser has already accepted, so it only has to find keys, not to judge them.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import tomli

Path = tuple[str | int, ...]
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
KEY = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*""")
STRING = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
SCALAR = re.compile(r"[^,\]}#\n]*")


def find_lines(text: str) -> dict[str, int]:
    """Dotted key -> line from 1, for every table and every key of a valid TOML, such as ``mix.source[0].weight``."""
    scanner = _Scanner(text)
    scanner.read_document()
    return {dotted(path): line for path, line in scanner.lines.items()}


def dotted(path: Sequence[str | int]) -> str:
    """A path as text: ``("mix", "source", 0, "a b")`` is ``mix.source[0]."a b"``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if BARE_KEY.fullmatch(step) else json.dumps(step, ensure_ascii=False)
            text += f".{name}" if text else name
    return text


class _Scanner:
    """A position in the text, and the lines found so far."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._array_lengths: dict[Path, int] = {}

    def read_document(self) -> None:
        table: Path = ()
        self._skip(BLANK)
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._read_header("[[", "]]")
            elif self._text.startswith("[", self._at):
                table = self._read_header("[", "]")
            else:
                self._read_pair(table)
            self._skip(BLANK)

    def _read_header(self, opening: str, closing: str) -> Path:
        line = self._line
        self._expect(opening)
        names = self._read_names()
        self._expect(closing)
        *parents, last = names
        path = (*self._newest(parents), last)
        if opening == "[[":
            number = self._array_lengths.get(path, 0)
            self._array_lengths[path] = number + 1
            self.lines.setdefault(path, line)
            path = (*path, number)
        self._note(path, line)
        return path

    def _newest(self, names: Sequence[str]) -> Path:
        """The path that a header's names mean: through an array of tables, its newest table."""
        path: Path = ()
        for name in names:
            path = (*path, name)
            if path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
        return path

    def _read_pair(self, table: Path) -> None:
        line = self._line
        path = (*table, *self._read_names())
        self._note(path, line)
        self._expect("=")
        self._skip(BLANK)
        self._read_value(path)

    def _note(self, path: Path, line: int) -> None:
        """Remember a key, and the tables that its dots make."""
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _read_names(self) -> list[str]:
        names = [self._read_name()]
        while self._text.startswith(".", self._at):
            self._expect(".")
            names.append(self._read_name())
        return names

    def _read_name(self) -> str:
        found = self._skip(KEY)
        name = found[1]
        return name if BARE_KEY.fullmatch(name) else _unquoted(name)

    def _read_value(self, path: Path) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening == "[":
            self._read_array(path)
        elif opening == "{":
            self._read_inline_table(path)
        else:
            self._skip(STRING if opening in ('"', "'") else SCALAR)

    def _read_array(self, path: Path) -> None:
        self._expect("[")
        self._skip(BLANK)
        number = 0
        while not self._text.startswith("]", self._at):
            self.lines.setdefault((*path, number), self._line)
            self._read_value((*path, number))
            self._skip_comma()
            number += 1
        self._expect("]")

    def _read_inline_table(self, path: Path) -> None:
        self._expect("{")
        self._skip(BLANK)
        while not self._text.startswith("}", self._at):
            self._read_pair(path)
            self._skip_comma()
        self._expect("}")

    def _skip_comma(self) -> None:
        self._skip(BLANK)
        if self._text.startswith(",", self._at):
            self._expect(",")
        self._skip(BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        assert found is not None, f"line {self._line}: a TOML parser took what this scanner cannot read"
        self._line += found[0].count("\n")
        self._at = found.end()
        return found

    def _expect(self, mark: str) -> None:
        assert self._text.startswith(mark, self._at), f"line {self._line}: expected {mark}"
        self._at += len(mark)


def _unquoted(name: str) -> str:
    """A quoted key's text; the parser itself knows the escapes."""
    table: dict[str, Any] = tomli.loads(f"{name} = 0")
    return next(iter(table))
