"""Where catalogue modules lie, and what they hold when they are read as data. Nothing is imported to find them."""

import ast
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vlm_catalogs
from vlm_catalogs.catalog_language.libraries import library
from vlm_catalogs.catalog_language.limits import Budget
from vlm_catalogs.catalog_language.statements import Statements
from vlm_catalogs.catalog_language.values import CatalogModule, Opaque, OriginalPackage, TypingName
from vlm_catalogs.errors import ConfigError

ORIGINAL_PACKAGE = "projects.cosmos3"
ORIGINAL_SOURCE_MODULE = "projects.cosmos3.vlm.datasets.utils"
HARMLESS_MODULES = frozenset({"typing", "typing_extensions", "dataclasses", "collections.abc", "__future__"})
INSTALLED_FOLDERS = frozenset({"site-packages", "dist-packages"})
MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class FoundModule:
    """A module file by where it was found."""

    name: str
    path: Path
    root: Path

    @property
    def package(self) -> str:
        """The dotted name that relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def neighbour_roots() -> list[Path]:
    """The working directory, then catalogs/ in it, then the catalogs folder that ships with this package."""
    return [Path.cwd(), Path.cwd() / "catalogs", Path(vlm_catalogs.__file__).parent.parent]


def search_roots() -> list[Path]:
    """Where a catalogue is looked for, in order; ``sys.path`` comes last."""
    roots = [*neighbour_roots(), *(Path(entry) for entry in sys.path if entry)]
    return list(dict.fromkeys(root.absolute() for root in roots if root.is_dir()))


def find_module(name: str, roots: list[Path]) -> FoundModule | None:
    """The first ``a/b/c.py`` or ``a/b/c/__init__.py`` for ``a.b.c``."""
    for root in roots:
        place = root.joinpath(*name.split("."))
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                return FoundModule(name, path, root)
    return None


def display_path(path: Path) -> str:
    """The path as messages show it: from the working directory where it lies under it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class CatalogReader:
    """One reading of a catalogue with everything that it imports: each file once, on one budget."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.modules: dict[str, CatalogModule] = {}
        self.reading: list[Path] = []

    def read(self, found: FoundModule) -> CatalogModule:
        """The names that a file binds. Raises ConfigError for what cannot be read as data, and for import cycles."""
        if found.path in self.reading:
            circle = [*self.reading[self.reading.index(found.path) :], found.path]
            raise ConfigError(
                "catalogue files import each other: " + " -> ".join(display_path(path) for path in circle)
            )
        known = self.modules.get(found.name)
        if known is not None and known.path is not None:
            return known
        names = {"__name__": found.name, "__file__": str(found.path)}
        module = CatalogModule(found.name, found.path, names | (known.names if known else {}))
        tree = parse_file(found.path)
        self.reading.append(found.path)
        Statements(self.budget, display_path(found.path), ModuleImports(self, found)).run_module(tree, module.names)
        self.reading.pop()
        self.modules[found.name] = module
        return module


class ModuleImports:
    """What the import statements of one module come to."""

    def __init__(self, reader: CatalogReader, importer: FoundModule) -> None:
        self.reader = reader
        self.importer = importer
        roots = [importer.root, *neighbour_roots()]
        self.roots = list(dict.fromkeys(root.absolute() for root in roots))

    def load(self, dotted: str, level: int) -> CatalogModule | Opaque:
        """A neighbouring catalogue file as data; anything else as a name that stands for code."""
        name = self._absolute_name(dotted, level)
        if not dotted:
            return CatalogModule(name, None, {})  # `from . import x`: x is a file of this folder, seldom a name of it
        if not level and name in HARMLESS_MODULES:
            return TypingName(name)
        if not level and name.partition(".")[0] in sys.stdlib_module_names:
            return library(name) or Opaque(f"the module {name}")
        module = self._load_neighbour(name)
        if level and isinstance(module, Opaque):
            raise ImportError(f"no file {name.replace('.', '/')}.py in the folder that the catalogue was found in")
        return module

    def _load_neighbour(self, name: str) -> CatalogModule | Opaque:
        found = self._find(name)
        if found is not None:
            return self.reader.read(found)
        if _is_original(name):
            return OriginalPackage(name)
        if any(root.joinpath(*name.split(".")).is_dir() for root in self.roots):
            return CatalogModule(name, None, {})
        return Opaque(f"the module {name} (no catalogue file of that name beside this one)")

    def load_top(self, dotted: str) -> CatalogModule | Opaque:
        """What ``import a.b.c`` binds: ``a``, with the parts below as attributes. Packages on the way are not read."""
        inner = self.load(dotted, 0)
        top, *rest = dotted.split(".")
        if isinstance(inner, Opaque):
            return _top_of(inner, top) if rest else inner
        for name in reversed(list(_prefixes(dotted))[:-1]):
            outer = self.reader.modules.setdefault(name, CatalogModule(name, None, {}))
            outer.names[inner.name.rpartition(".")[2]] = inner
            inner = outer
        return inner

    def load_member(self, owner: CatalogModule | Opaque, name: str) -> Any:
        """What ``from owner import name`` binds: a name of the module, else a module inside it."""
        if isinstance(owner, TypingName | OriginalPackage):
            return owner.attribute(name)
        if isinstance(owner, Opaque):
            return Opaque(f"{name} from {owner.what}")
        if name in owner.names:
            return owner.names[name]
        inner = f"{owner.name}.{name}".lstrip(".")
        if self._find(inner) is not None:
            return self._load_neighbour(inner)
        package = self._find(owner.name) if owner.path is None and owner.name else None
        if package is not None:
            return self.load_member(self.reader.read(package), name)
        place = f" ({display_path(owner.path)})" if owner.path else ""
        raise ImportError(f"cannot import name {name!r} from {owner.name or '.'!r}{place}")

    def _find(self, name: str) -> FoundModule | None:
        """A neighbour by name; the original's own DataSource module is ours.

        Of a folder of installed packages only the importer's own package is a neighbour.
        """
        if name == ORIGINAL_SOURCE_MODULE:
            return None
        own = name.partition(".")[0] == self.importer.name.partition(".")[0]
        roots = [root for root in self.roots if own or root.name not in INSTALLED_FOLDERS]
        return find_module(name, roots)

    def _absolute_name(self, dotted: str, level: int) -> str:
        if not level:
            return dotted
        package = self.importer.package.split(".") if self.importer.package else []
        if level - 1 > len(package):
            raise ImportError("relative import beyond the folder that the catalogue was found in")
        return ".".join([*package[: len(package) - level + 1], *([dotted] if dotted else [])])


def _top_of(inner: Opaque, top: str) -> Opaque:
    return OriginalPackage(top) if isinstance(inner, OriginalPackage) else Opaque(f"the module {top}")


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


def _is_original(name: str) -> bool:
    return name == "projects" or name == ORIGINAL_PACKAGE or name.startswith(f"{ORIGINAL_PACKAGE}.")


def parse_file(path: Path) -> ast.Module:
    """The syntax tree of a file. Raises ConfigError with file and line for what is not Python."""
    file = display_path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file}: over {MAX_FILE_BYTES >> 20} MiB, so this is not a catalogue")
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(content, filename=file)
            compile(tree, file, "exec")  # what only the compiler finds, such as `break` outside a loop; nothing runs
            return tree
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno or 1}: not valid Python: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"{file}: cannot be read as data: nested too deeply for Python's own parser") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid Python: {error}") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
