"""Catalogue modules imported for real, when ``[custom] allow_catalog_code`` says so."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from vlm_catalogs.catalog_language.modules import (
    INSTALLED_FOLDERS,
    ORIGINAL_PACKAGE,
    ORIGINAL_SOURCE_MODULE,
    FoundModule,
    display_path,
    find_module,
)
from vlm_catalogs.catalog_language.values import DataSource
from vlm_catalogs.errors import ConfigError


class _OriginalStandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``projects.cosmos3...`` where the catalogue's own folder does not hold it, with our DataSource in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "projects" and not f"{fullname}.".startswith(f"{ORIGINAL_PACKAGE}."):
            return None
        if fullname != ORIGINAL_SOURCE_MODULE and self._is_real(fullname):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def _is_real(self, fullname: str) -> bool:
        return find_module(fullname, [self.root]) is not None or self.root.joinpath(*fullname.split(".")).is_dir()

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["DataSource"] = DataSource


def import_as_code(found: FoundModule) -> dict[str, Any]:
    """The names of a module that was imported, so everything in it ran. Raises ConfigError naming what it raised."""
    with _import_state(found.root):
        try:
            module = importlib.import_module(found.name)
        except (Exception, SystemExit) as error:  # user code may raise anything
            raise ConfigError(
                f"{_raised_at(error, found)}: importing it raised {type(error).__name__}: {error}"
            ) from error
    if module.__file__ is None or Path(module.__file__).absolute() != found.path.absolute():
        raise ConfigError(
            f"{display_path(found.path)}: another module named {found.name!r} is loaded already ({module.__file__}); "
            "rename the catalogue file"
        )
    return dict(vars(module))


def _raised_at(error: BaseException, found: FoundModule) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{display_path(Path(error.filename))}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == found.path]
    return f"{display_path(found.path)}:{lines[-1]}" if lines else display_path(found.path)


@contextmanager
def _import_state(root: Path) -> Iterator[None]:
    """The catalogue's folder first on the path, and the stand-in; afterwards both are gone, and what they loaded."""
    finder = _OriginalStandIn(root)
    modules_before = dict(sys.modules)
    path_before = list(sys.path)
    hidden = [name for name in sys.modules if name == "projects" or name.startswith("projects.")]
    for name in hidden:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = path_before
        for name in set(sys.modules) - modules_before.keys():
            if _is_of_catalogue(sys.modules[name], finder, root):
                del sys.modules[name]
        sys.modules.update({name: modules_before[name] for name in hidden})


def _is_of_catalogue(module: ModuleType, finder: _OriginalStandIn, root: Path) -> bool:
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.loader is finder:
        return True
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(root) and not _is_installed(Path(file))


def _is_installed(file: Path) -> bool:
    """Libraries stay loaded: many cannot be imported twice."""
    return not INSTALLED_FOLDERS.isdisjoint(file.parts) or file.is_relative_to(sysconfig.get_path("stdlib"))
