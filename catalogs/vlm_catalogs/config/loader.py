"""Read a TOML into a Config, or report everything that is wrong with it at once, each problem with its line."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from vlm_catalogs.config import rules
from vlm_catalogs.config.fates import Fates
from vlm_catalogs.config.overrides import apply_overrides
from vlm_catalogs.config.problems import Problems
from vlm_catalogs.config.sections import Config, MixSource
from vlm_catalogs.config.toml_file import read_toml
from vlm_catalogs.config.toml_lines import dotted
from vlm_catalogs.config.values import Mismatch, choices, fit, shown

Keys = tuple[str | int, ...]


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """The Config of a TOML, with ``section.key=value`` overrides checked like the file.

    Raises ConfigError with every problem, one a line: ``file:line: key: expected X, got Y; did you mean 'z'?``.
    """
    document = read_toml(path)
    problems = Problems(path, document.lines)
    apply_overrides(document, overrides, problems)
    reader = _Reader(problems)
    config = dataclasses.replace(reader.read_config(document.table, path), lines=problems.lines)
    notes = rules.check(config, problems)
    problems.raise_all()
    return dataclasses.replace(config, notes=(*reader.fates.notes(), *notes))


class _Reader:
    """One walk over the tables of a TOML."""

    def __init__(self, problems: Problems) -> None:
        self.fates = Fates()
        self._problems = problems

    def read_config(self, table: dict[str, Any], path: Path) -> Config:
        config: Config = self._read_section(Config, table, (), path=path)
        return dataclasses.replace(config, mix=dataclasses.replace(config.mix, name=config.mix_name))

    def _read_section(self, section: type[Any], table: Mapping[str, Any], keys: Keys, **given: object) -> Any:
        """An instance of ``section``; a key that does not fit is reported and keeps its default."""
        hints = field_types(section)
        for name, value in table.items():
            path = (*keys, name)
            if name in hints:
                given.update(self._read_field(hints[name], value, path))
            else:
                self._meet_stranger(path, value, hints)
        return section(**given)

    def _read_field(self, hint: Any, value: object, path: Keys) -> dict[str, Any]:
        name = str(path[-1])
        section = section_of(hint)
        if section is MixSource:
            return {name: self._read_sources(value, path)}
        if section is not None:
            return self._read_table(section, value, path)
        try:
            fitted = fit(hint, value)
        except Mismatch as error:
            self._problems.add(path, _mismatch(str(error), hint, value))
            return {}
        self._judge(path, fitted)
        return {name: fitted}

    def _read_table(self, section: type[Any], value: object, path: Keys) -> dict[str, Any]:
        if not self._is_table(value, path) or not self._judge(path, value):
            return {}
        return {str(path[-1]): self._read_section(section, value, path)}

    def _read_sources(self, value: object, path: Keys) -> tuple[MixSource, ...]:
        if not isinstance(value, list):
            got = "a table" if isinstance(value, dict) else shown(value)
            self._problems.add(path, f"expected tables, as [[{dotted(path)}]], got {got}")
            return ()
        return tuple(
            self._read_section(MixSource, table, (*path, number), line=self._problems.line((*path, number)))
            for number, table in enumerate(value)
            if self._is_table(table, (*path, number))
        )

    def _is_table(self, value: object, path: Keys) -> TypeGuard[dict[str, Any]]:
        if not isinstance(value, dict):
            self._problems.add(path, f"expected a table, as [{dotted(path)}], got {shown(value)}")
        return isinstance(value, dict)

    def _judge(self, path: Keys, value: object) -> bool:
        """False, with the problem reported, when ``value`` is refused."""
        refusal = self.fates.judge(dotted(path), value)
        if refusal is not None:
            self._problems.add(path, refusal)
        return refusal is None

    def _meet_stranger(self, path: Keys, value: object, hints: Mapping[str, Any]) -> None:
        """A key of no section: known to mean nothing here, or a mistake."""
        key = dotted(path)
        if isinstance(value, dict) and self.fates.has_under(key):
            for name, inner in value.items():
                self._meet_stranger((*path, name), inner, {})
        elif self.fates.covers(key):
            self._judge(path, value)
        else:
            self._problems.add(path, f"unknown key{_suggestion(path, hints)}")


def field_types(section: type[Any]) -> dict[str, Any]:
    """Name -> type of the fields that a TOML can set."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(section) if field.compare}


def section_of(hint: Any) -> type[Any] | None:
    """The section class that a field holds, also inside ``Section | None`` and ``tuple[Section, ...]``."""
    candidates = (hint, *typing.get_args(hint))
    return next((each for each in candidates if isinstance(each, type) and dataclasses.is_dataclass(each)), None)


def all_keys(section: type[Any] = Config, prefix: str = "") -> tuple[str, ...]:
    """Every dotted key that a TOML can set."""
    keys: list[str] = []
    for name, hint in field_types(section).items():
        inner = section_of(hint)
        keys += all_keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return tuple(keys)


def _mismatch(wanted: str, hint: Any, value: object) -> str:
    close = difflib.get_close_matches(value, choices(hint), n=1) if isinstance(value, str) else []
    return f"expected {wanted}, got {shown(value)}" + (f"; did you mean {close[0]!r}?" if close else "")


def _suggestion(path: Keys, hints: Mapping[str, Any]) -> str:
    """The key of this section that is spelled alike, else the same key in another section."""
    name = str(path[-1])
    close = difflib.get_close_matches(name, hints, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    elsewhere = [key for key in all_keys() if key.rpartition(".")[2] == name]
    return f"; did you mean {elsewhere[0]!r}?" if elsewhere else ""
