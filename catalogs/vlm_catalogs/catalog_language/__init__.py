"""Catalogue modules: Python files of data, found by name and read without being run."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vlm_catalogs.catalog_language.modules import (
    CatalogReader,
    FoundModule,
    display_path,
    find_module,
    parse_file,
    search_roots,
)
from vlm_catalogs.catalog_language.running import import_as_code
from vlm_catalogs.catalog_language.values import DEFAULT_MEDIA_KEYS, DataSource
from vlm_catalogs.errors import ConfigError

__all__ = ["DEFAULT_MEDIA_KEYS", "Catalog", "DataSource", "display_path", "read_catalog"]


@dataclass(frozen=True, slots=True)
class Catalog:
    """A catalogue module as it was read."""

    path: Path
    names: Mapping[str, Any]
    tree: ast.Module

    def where(self, attribute: str, key: str | None = None) -> str:
        """``file:line`` of the statement that binds a name, and in it of one key, as far as the text shows it."""
        bound = [node for node in self.tree.body if attribute in _bound_names(node)]
        places = [
            place for node in bound for place in ast.walk(node) if isinstance(place, ast.expr) and _is_text(place, key)
        ]
        found: list[ast.expr] | list[ast.stmt] = places or bound[-1:]
        return f"{display_path(self.path)}:{found[-1].lineno}" if found else display_path(self.path)

    def attribute(self, name: str) -> Any:
        """The value of a name. Raises ConfigError that lists the dictionaries there are."""
        if name in self.names:
            return self.names[name]
        dicts = [one for one, value in self.names.items() if isinstance(value, dict) and not one.startswith("_")]
        close = get_close_matches(name, dicts, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{display_path(self.path)}: has no {name!r}{hint} (its dictionaries: {', '.join(dicts) or 'none'})"
        )


def read_catalog(name: str, *, allow_code: bool, where: str) -> Catalog:
    """The catalogue module of a dotted name, as data unless ``allow_code``. ``where`` is the place that named it.

    Raises ConfigError when it is not found, is not Python, or cannot be read as data.
    """
    found = _find(name, where)
    tree = parse_file(found.path)
    names = import_as_code(found) if allow_code else CatalogReader().read(found).names
    return Catalog(found.path, names, tree)


def _find(name: str, where: str) -> FoundModule:
    roots = search_roots()
    found = find_module(name, roots)
    if found is None:
        looked = ", ".join(str(root.joinpath(*name.split("."))) + ".py" for root in roots)
        raise ConfigError(f"{where}: no catalogue module {name!r}; looked for {looked}")
    return found


def _bound_names(node: ast.stmt) -> set[str]:
    """The names that a statement binds or changes, as far as its text shows."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Expr):
        node_names = ast.walk(node.value.func) if isinstance(node.value, ast.Call) else iter(())
        return {one.id for one in node_names if isinstance(one, ast.Name)}
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}


def _is_text(node: ast.AST, key: str | None) -> bool:
    return key is not None and isinstance(node, ast.Constant) and node.value == key
