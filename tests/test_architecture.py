"""The rules that hold the house up, read from the syntax trees of the code; each is shown to find a planted offence."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HOUSES = {"catalogs": "vlm_catalogs", "prep": "vlm_prep", "train": "vlm_train"}

NEVER = {"vlm_catalogs": {"vlm_prep", "vlm_train"}, "vlm_prep": {"vlm_train"}, "vlm_train": {"vlm_prep"}}
ONLY_IN = {
    "torch": r"vlm_train(\..*)?",
    "torchvision": r"vlm_train(\..*)?",
    "duckdb": r"vlm_prep(\..*)?|vlm_train\.(explain|report|sql)(\..*)?",
    "streaming": r"vlm_prep\.(mds_shard|build|mix)|vlm_train\.stream",
    "transformers": r"vlm_catalogs\.render(\..*)?|vlm_train\.(models|encode|lora|\w*tiny\w*|export|check)(\..*)?",
    "peft": r"vlm_train\.lora",
    "ray": r"vlm_prep\.ray_tasks",
}
"""Package -> modules that may import it, at any depth of nesting."""

QUICK_MODULES = (
    r"vlm_prep\.(cli|commands(\..*)?)|vlm_train\.cli|vlm_catalogs\.(config(\..*)?|console|model_family|errors)"
)
HEAVY = {
    "torch",
    "torchvision",
    "transformers",
    "duckdb",
    "streaming",
    "pyarrow",
    "boto3",
    "av",
    "PIL",
    "rich",
    "numpy",
}
"""What ``--help`` and a wrong TOML must not wait for."""

CATALOGUE_FINDERS = r"vlm_catalogs\.catalog_language\.(modules|running)"
"""They may: one looks into the catalogs folder that ships with its package, one imports what the user asked for."""

NAMES_WITHOUT_A_QUESTION = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

PLACES_OF_A_MACHINE = re.compile(
    r"(?<![\w.~<>*)}\]-])/(?:home|root|work|Users|opt)/\w"  # absolute paths that another machine does not have
    r"|(?:--(?:extra-)?index-url|PIP_INDEX_URL|UV_INDEX_URL|\bfile:///)"  # where packages come from
    r"|https?://[^\s\"'<>]*/simple\b"
)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".lock", ".sh", ".sql", ".json", ".jsonl", ".yml", ".yaml", ".cfg", ".txt", ""}


@dataclass(frozen=True)
class Module:
    """One module of the three packages."""

    name: str
    path: Path
    shown: str

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


@dataclass(frozen=True)
class Import:
    """One imported module name and the line of it."""

    name: str
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


def read_modules(root: Path) -> list[Module]:
    """Every module below catalogs/vlm_catalogs, prep/vlm_prep and train/vlm_train."""
    modules = []
    for house, package in HOUSES.items():
        for path in sorted((root / house / package).rglob("*.py")):
            parts = path.relative_to(root / house).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules.append(Module(name, path, path.relative_to(root).as_posix()))
    return modules


def imports_of(module: Module, statements: Iterator[ast.AST]) -> Iterator[Import]:
    """What the statements import; ``from a import b`` names both ``a`` and ``a.b``; also ``import_module("a")``."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute_source(module, node)
            yield Import(source, node.lineno)
            yield from (Import(f"{source}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            yield from (Import(str(arg.value), node.lineno) for arg in node.args if isinstance(arg, ast.Constant))


def absolute_source(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name if module.path.name == "__init__.py" else module.name.rpartition(".")[0]
    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parents, *([node.module] if node.module else [])])


def called_name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: no function bodies, nothing under TYPE_CHECKING or __main__."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and re.search(r"TYPE_CHECKING|__name__", ast.unparse(child.test)):
            continue
        yield child
        yield from run_on_import(child)


def stages_meet_at_files(root: Path) -> list[str]:
    """prep and train never import each other, and catalogs imports neither."""
    return [
        f"{module.shown}:{found.line}: {module.name} imports {found.name}"
        for module in read_modules(root)
        for found in imports_of(module, ast.walk(module.tree))
        if found.top in NEVER[module.name.partition(".")[0]]
    ]


def heavy_packages_stay_where_they_belong(root: Path) -> list[str]:
    """torch, duckdb, streaming and transformers are imported only by the modules that ONLY_IN lists."""
    return [
        f"{module.shown}:{found.line}: {module.name} imports {found.name}"
        for module in read_modules(root)
        for found in imports_of(module, ast.walk(module.tree))
        if found.top in ONLY_IN and not re.fullmatch(ONLY_IN[found.top], module.name)
    ]


def commands_answer_at_once(root: Path) -> list[str]:
    """What the commands and the configuration import, directly or through others, holds nothing heavy."""
    modules = {module.name: module for module in read_modules(root)}
    quick = [module for name, module in modules.items() if re.fullmatch(QUICK_MODULES, name)]
    return [trace for module in quick for trace in heavy_traces(module, modules)]


def heavy_traces(start: Module, modules: dict[str, Module]) -> Iterator[str]:
    """``a -> b -> torch`` for each heavy package that importing ``start`` imports."""
    paths = {start.name: start.name}
    waiting = [start.name]
    reported = set()
    while waiting:
        name = waiting.pop()
        for found in imports_of(modules[name], run_on_import(modules[name].tree)):
            if found.top in HEAVY and found.top not in reported:
                reported.add(found.top)
                yield f"{modules[name].shown}:{found.line}: {paths[name]} -> {found.top}"
            for reached in with_parents(found.name):
                if reached in modules and reached not in paths:
                    paths[reached] = f"{paths[name]} -> {reached}"
                    waiting.append(reached)


def with_parents(name: str) -> list[str]:
    """Importing ``a.b.c`` runs ``a`` and ``a.b`` too."""
    parts = name.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def importing_does_nothing(root: Path) -> list[str]:
    """No seeds, environment variables, logging set-up or calls for their effect while a module is imported."""
    return [
        f"{module.shown}:{node.lineno}: runs on import: {ast.unparse(node).splitlines()[0][:80]}"
        for module in read_modules(root)
        for node in run_on_import(module.tree)
        if isinstance(node, ast.stmt) and has_an_effect(node)
    ]


def has_an_effect(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Subscript | ast.Attribute) for target in targets)


def modules_are_named_by_a_question(root: Path) -> list[str]:
    """No utils.py, common.py, helpers.py, base.py or misc.py, and no packages of that name."""
    return [
        f"{module.shown}: a module is named by the question it answers"
        for module in read_modules(root)
        if NAMES_WITHOUT_A_QUESTION & set(module.name.split("."))
    ]


def nothing_climbs_out_of_its_folder(root: Path) -> list[str]:
    """No ``from ..x``, no ``sys.path``, no ``"../"``, no ``Path(__file__).parents`` or ``.parent.parent``."""
    return [
        f"{module.shown}:{getattr(node, 'lineno', 0)}: climbs: {ast.unparse(node).splitlines()[0][:80]}"
        for module in read_modules(root)
        if not re.fullmatch(CATALOGUE_FINDERS, module.name)
        for node in ast.walk(module.tree)
        if climbs(node)
    ]


def climbs(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.level > 1
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return bool(re.match(r"\.\./\S*$", node.value))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return ast.unparse(node.func) in ("sys.path.insert", "sys.path.append")
    if isinstance(node, ast.Attribute):
        return re.search(r"__file__.*\.(parents|parent\.parent)$", ast.unparse(node)) is not None
    return False


def files_and_functions_stay_short(root: Path) -> list[str]:
    """No file above 400 lines, no function above 60."""
    found = []
    for module in read_modules(root):
        num_lines = len(module.text.splitlines())
        if num_lines > MAX_FILE_LINES:
            found.append(f"{module.shown}: {num_lines} lines")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    found.append(f"{module.shown}:{node.lineno}: {node.name} has {length} lines")
    return found


def only_the_console_prints(root: Path) -> list[str]:
    """``print`` stands in vlm_catalogs.console alone."""
    return [
        f"{module.shown}:{node.lineno}: {ast.unparse(node)[:80]}"
        for module in read_modules(root)
        if module.name != "vlm_catalogs.console"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def no_file_knows_its_machine(root: Path) -> list[str]:
    """No committed text names an absolute path of one machine or a place that packages are fetched from."""
    return [
        f"{path.relative_to(root).as_posix()}:{number}: {line.strip()[:100]}"
        for path in committed_files(root)
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if PLACES_OF_A_MACHINE.search(line)
    ]


def committed_files(root: Path) -> list[Path]:
    """What git tracks below ``root``; every file where git tracks nothing there."""
    listing = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=False)
    tracked = [root / name for name in listing.stdout.split("\0") if name]
    return [path for path in tracked or sorted(root.rglob("*")) if path.is_file()]


RULES: dict[Callable[[Path], list[str]], dict[str, str]] = {
    stages_meet_at_files: {
        "prep/vlm_prep/a.py": "def f():\n    import vlm_train.loop\n",
        "train/vlm_train/a.py": "from vlm_prep import build\n",
        "catalogs/vlm_catalogs/a.py": "import importlib\nimportlib.import_module('vlm_prep.build')\n",
        "catalogs/vlm_catalogs/b.py": "from vlm_train import epoch\n",
    },
    heavy_packages_stay_where_they_belong: {
        "prep/vlm_prep/a.py": "def f():\n    import torch.nn\n",
        "catalogs/vlm_catalogs/a.py": "from duckdb import sql\n",
        "train/vlm_train/loop.py": "import transformers\n",
        "train/vlm_train/models/b.py": "import streaming\n",
    },
    commands_answer_at_once: {
        "prep/vlm_prep/cli.py": "from vlm_prep.build import build_mix\n",
        "prep/vlm_prep/build.py": "try:\n    import duckdb\nexcept ImportError:\n    pass\n",
        "train/vlm_train/cli.py": "import torch\n",
        "catalogs/vlm_catalogs/config/loader.py": "from vlm_catalogs import tables\n",
        "catalogs/vlm_catalogs/tables.py": "import pyarrow as pa\n",
        "catalogs/vlm_catalogs/__init__.py": "from transformers import AutoTokenizer\n",
    },
    importing_does_nothing: {
        "train/vlm_train/a.py": "import torch\ntorch.manual_seed(0)\n",
        "prep/vlm_prep/a.py": "import os\nif True:\n    os.environ['A'] = '1'\n",
        "catalogs/vlm_catalogs/a.py": "import warnings\nwarnings.simplefilter('ignore')\n",
    },
    modules_are_named_by_a_question: {
        "prep/vlm_prep/utils.py": "",
        "train/vlm_train/models/base.py": "",
        "catalogs/vlm_catalogs/helpers/paths.py": "",
    },
    nothing_climbs_out_of_its_folder: {
        "prep/vlm_prep/readers/a.py": "from ..build import build_mix\n",
        "train/vlm_train/a.py": "PATH = '../configs/a.toml'\n",
        "train/vlm_train/b.py": "import sys\n\ndef f():\n    sys.path.insert(0, 'x')\n",
        "catalogs/vlm_catalogs/a.py": "from pathlib import Path\nROOT = Path(__file__).resolve().parents[2]\n",
    },
    files_and_functions_stay_short: {
        "prep/vlm_prep/a.py": "A = 1\n" * 401,
        "train/vlm_train/a.py": "def f():\n" + "    a = 1\n" * 60,
    },
    only_the_console_prints: {
        "prep/vlm_prep/a.py": "def f():\n    print('done')\n",
        "catalogs/vlm_catalogs/render/console.py": "def f():\n    print('done')\n",
    },
    no_file_knows_its_machine: {
        "README.md": "Data lie in /home/someone/data.\n",
        "Makefile": "setup:\n\tPIP_INDEX_URL=https://example.org/packages pip install .\n",
        "configs/a.toml": 'output_dir = "/opt/outputs"\n',
        "requirements.lock": "torch @ file:///somewhere/torch.whl\n",
    },
}
"""Rule -> files that break it, each on its own."""

STARTS_OF_TRACES = {"prep/vlm_prep/cli.py", "catalogs/vlm_catalogs/config/loader.py"}
"""They break commands_answer_at_once through other modules, and the report names those."""

GOOD_TREE = {
    "catalogs/vlm_catalogs/__init__.py": '"""Shared."""\n',
    "catalogs/vlm_catalogs/console.py": "def result(text):\n    import rich\n    print(text)\n",
    "catalogs/vlm_catalogs/render/chat.py": "def load():\n    import transformers\n",
    "prep/vlm_prep/cli.py": (
        "from typing import TYPE_CHECKING\nfrom vlm_catalogs import console\nif TYPE_CHECKING:\n    import pyarrow\n"
        "def main():\n    from vlm_prep.select import select\nif __name__ == '__main__':\n    main()\n"
    ),
    "prep/vlm_prep/select.py": "import duckdb\nfrom vlm_catalogs import console\n",
    "train/vlm_train/cli.py": "def main():\n    from vlm_train import loop\n",
    "train/vlm_train/loop.py": '"""Trains."""\nimport torch\nTABLE = {}\n"""Doc."""\n',
    "train/vlm_train/report.py": "import duckdb\nFOLDER = Path(__file__).parent\n",
    "catalogs/vlm_catalogs/catalog_language/modules.py": "HERE = Path(__file__).parent.parent\n",
    "README.md": "Read https://example.org/my/home/ and s3://bucket/home/x and ./home/data.\n",
}


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(REPOSITORY) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_tree_in_order_passes(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    plant(tmp_path, GOOD_TREE)
    assert rule(tmp_path) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_planted_offence_is_found(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    plant(tmp_path, GOOD_TREE | RULES[rule])
    found = {offence.partition(":")[0] for offence in rule(tmp_path)}
    traced = (
        {"prep/vlm_prep/cli.py", "catalogs/vlm_catalogs/config/loader.py"} if rule is commands_answer_at_once else set()
    )
    assert found == set(RULES[rule]) - traced, "a trace ends at the module with the heavy import"


def test_a_trace_names_the_way_from_the_command_to_the_heavy_package(tmp_path: Path) -> None:
    plant(tmp_path, RULES[commands_answer_at_once])
    assert "prep/vlm_prep/build.py:2: vlm_prep.cli -> vlm_prep.build -> duckdb" in commands_answer_at_once(tmp_path)


def test_the_rules_look_at_all_three_packages() -> None:
    packages = {module.name.partition(".")[0] for module in read_modules(REPOSITORY)}
    assert packages == set(HOUSES.values())
    assert any(module.name == "vlm_catalogs.sample" for module in read_modules(REPOSITORY))
