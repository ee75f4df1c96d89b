"""A catalogue module reads the same as Python would run it, and nothing in it runs."""

import importlib
import math
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlm_catalogs.catalog_language import DataSource, read_catalog
from vlm_catalogs.catalog_language.values import Builtin, CatalogModule, Opaque
from vlm_catalogs.errors import ConfigError

WHERE = "config.toml:3"
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")
HEADER = "from projects.cosmos3.vlm.datasets.utils import DataSource\n"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, name: str = "weights") -> dict[str, Any]:
    Path(f"{name}.py").write_text(text)
    return names_of(read_catalog(name, allow_code=False, where=WHERE).names)


def names_of(names: Any) -> dict[str, Any]:
    return {name: value for name, value in names.items() if not name.startswith("__")}


def run_in_python(text: str) -> dict[str, Any]:
    """What Python itself binds; code is compared by name only."""
    stand_in = types.ModuleType("projects.cosmos3.vlm.datasets.utils")
    stand_in.__dict__["DataSource"] = DataSource
    parts = stand_in.__name__.split(".")
    fakes = {".".join(parts[:end]): types.ModuleType(parts[end - 1]) for end in range(1, len(parts))}
    module = types.ModuleType("weights")
    modules = {**fakes, stand_in.__name__: stand_in, "weights": module}
    sys.modules.update(modules)
    try:
        exec(text, vars(module))
    finally:
        for name in modules:
            del sys.modules[name]
    return names_of(vars(module))


def comparable(names: dict[str, Any]) -> str:
    """Text that differs when a value, a type, or an order of keys differs. Code and modules are left out."""
    modules = (CatalogModule, types.ModuleType)
    skipped = (Opaque, Builtin, *modules, types.FunctionType, types.BuiltinFunctionType, type, types.GenericAlias)
    kept = {name: value for name, value in names.items() if not isinstance(value, skipped)}
    return repr({name: value for name, value in kept.items() if type(value).__module__ not in ("typing", "__future__")})


SECTIONS = Path(__file__).with_name("catalog_constructs.txt").read_text().split("### ")[1:]
CONSTRUCTS = {name: text for name, _, text in (section.partition("\n") for section in SECTIONS)}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_a_construct_reads_the_same_as_python_runs_it(construct: str) -> None:
    text = CONSTRUCTS[construct]

    assert comparable(read(text)) == comparable(run_in_python(text))
    assert len(comparable(read(text))) > 2


NUMBERS = st.integers(-20, 20) | st.sampled_from([0.5, 2.25, -1.5, 1e300, math.inf])
LEAVES = NUMBERS.map(repr).map(lambda text: text.replace("inf", "1e999")) | st.sampled_from(
    ["True", "None", "'ab'", "''", "'x y'", "n", "s", "rows", "table", "[]", "{}", "missing"]
)


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = ["+", "-", "*", "/", "//", "%", "|", "&", "<", "<=", "==", "!=", "in", "not in", "and", "or", "** 2 +"]
    binary = st.builds("({} {} {})".format, inner, st.sampled_from(operators), inner)
    forms = [
        "[{0}, {1}]",
        "({0}, *{1})",
        "{{{0}: {1}, **{2}}}",
        "({0} if {1} else {2})",
        "[x for x in {0} if {1}]",
        "{{x: {1} for x in {0}}}",
        "sorted(y for x in {0} for y in {1})",
        "f'{{{0}!r:>4}}{{{1}}}'",
        "{0}[{1}]",
        "{0}[{1}:{2}]",
        "dict({0}, z={1})",
        "len({0})",
        "sum({0})",
        "max({0}, {1})",
        "list(zip({0}, {1}))",
        "str({0})",
        "round({0}, {1})",
        "int({0})",
        "{0}.get({1}, {2})",
        "{0}.items()",
        "{0}.split()",
        "{0}.join({1})",
        "(not {0})",
        "(-{0})",
        "({0} < {1} < {2})",
        "any(x for x in {0})",
        "set({0})",
    ]
    return binary | st.builds(lambda form, *parts: form.format(*parts), st.sampled_from(forms), inner, inner, inner)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(LEAVES, combined, max_leaves=8))
def test_any_expression_comes_to_what_python_makes_of_it(expression: str) -> None:
    if "!r" in expression and expression.count("'") > 6:
        expression = expression.replace("'", "")
    text = f"n = 3\ns = 'abc'\nrows = [('a', 1), ('b', 2)]\ntable = {{'a': 1, 'b': [2]}}\nresult = {expression}"
    try:
        compile(text, "weights.py", "exec")
        expected: object = comparable(run_in_python(text))
    except Exception as error:  # noqa: BLE001 - whatever Python raises is what is compared
        expected = type(error).__name__
    try:
        found: object = comparable(read(text))
    except ConfigError as error:
        refused = "cannot be read as data" in str(error)
        assert refused or "not valid Python" in str(error) or str(expected) in str(error), error
        # Refusing is right only for what has no value of its own: views, generators, `is`, sizes.
        assert not refused or any(sign in str(error) for sign in REFUSALS), error
        return
    assert found == expected


REFUSALS = (
    "the method",
    "where a plain value is needed",
    "more than 4,096",
    "digits in round()",
    "characters in a text",
)


REFUSED = {
    "import os\nos.system('touch ran')\n": (2, "os.system"),
    "__import__('os').system('touch ran')\n": (1, "__import__()"),
    "eval('1')\n": (1, "eval()"),
    "open('ran', 'w')\n": (1, "open()"),
    "def f():\n    return {}\n\nw = f()\n": (4, "the function f"),
    "class C:\n    pass\nw = C()\n": (3, "the class C"),
    "w = (lambda: 1)()\n": (1, "a lambda"),
    "import os\nw = {\n  'a': 1,\n  'b': os.environ['X'],\n}\n": (4, "os.environ"),
    "from math import factorial\nw = factorial(10**9)\n": (2, "math.factorial"),
    "import math\nw = math.prod([10**9] * 10**6)\n": (2, "math.prod"),
    "from collections import Counter\nw = Counter('aab')\n": (2, "collections.Counter"),
    "from random import random\nw = random()\n": (2, "random from the module random"),
    "w = ''.__class__\n": (1, "__class__"),
    "w = '{0.__class__}'.format(1)\n": (1, "attribute"),
    "w = [].__class__.__base__.__subclasses__()\n": (1, "__class__"),
    "w = (1).to_bytes(10**9, 'big')\n": (1, "int.to_bytes()"),
    "w = '\\t'.expandtabs(10**9)\n": (1, "str.expandtabs()"),
    "import os.path as p\nw = {'a': p.join('a', 'b')}\n": (2, "os.path.join"),
    "while True:\n    pass\n": (1, "while"),
    "try:\n    a = 1\nexcept ValueError:\n    pass\n": (1, "try"),
    "with open('x') as f:\n    pass\n": (1, "with"),
    "raise SystemExit\n": (1, "raise"),
    "import numpy as np\nw = np.array([1])\n": (2, "numpy"),
    "a = 1000\nb = a is 1000\n": (2, "`is`"),
    "def f(): pass\nw = {f: 1}\n": (2, "the function f"),
    "def f(): pass\nw = str([f])\n": (2, "the function f"),
    "def f(): pass\nif f:\n    pass\n": (2, "the function f"),
    "w = sorted([1], key=abs)\n": (1, ""),
    "print('hello')\n": (1, "print()"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_data_is_refused_with_file_and_line_and_does_not_run(text: str) -> None:
    line, construct = REFUSED[text]

    with pytest.raises(ConfigError) as refusal:
        read(text)

    assert str(refusal.value).startswith(f"weights.py:{line}: ")
    assert construct in str(refusal.value)
    if construct:
        assert "allow_catalog_code = true" in str(refusal.value)
    assert not Path("ran").exists()


def test_a_catalogue_that_runs_a_command_runs_it_only_when_allowed() -> None:
    Path("weights.py").write_text("import os\nos.system('touch ran')\nw = {'a': 1}\n")

    with pytest.raises(ConfigError, match=r"weights.py:2: cannot be read as data: .*allow_catalog_code"):
        read_catalog("weights", allow_code=False, where=WHERE)
    assert not Path("ran").exists()

    assert read_catalog("weights", allow_code=True, where=WHERE).attribute("w") == {"a": 1}
    assert Path("ran").exists()


MISTAKES = {
    "a = {'x': 1}\nb = a['y']\n": (2, "KeyError: 'y'"),
    "a = 1\n\nb = a / 0\n": (3, "ZeroDivisionError"),
    "b = a\n": (1, "NameError: name 'a' is not defined"),
    "a = [x for x in 'ab']\nb = x\n": (2, "NameError"),
    "a, b = 1, 2, 3\n": (1, "ValueError"),
    "assert 1 > 2, 'sizes'\n": (1, "AssertionError: sizes"),
    "a = {}\na[[]] = 1\n": (2, "TypeError"),
    "d = {'a': 1}\nfor k in d:\n    d[k + 'b'] = 1\n": (2, "RuntimeError"),
    "a = (\n": (1, "not valid Python"),
    "a = 1\nbreak\n": (2, "not valid Python"),
    "a = '\0'\n": (0, "not valid Python"),
    HEADER + "d = DataSource(wdinfo={}, text_keys=[])\n": (2, "no field 'wdinfo'; did you mean 'wdinfo_path'"),
    HEADER + "d = DataSource({})\n": (2, "text_keys"),
    "from .missing import x\n": (1, "missing"),
    "x = -" + "-" * 1500 + "1\n": (0, "nested too deeply"),
    "x = " + "+".join(["1"] * 3000) + "\n": (0, "nested too deeply"),
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_in_a_catalogue_is_an_error_of_the_user_with_its_line(text: str) -> None:
    line, message = MISTAKES[text]

    with pytest.raises(ConfigError) as error:
        read(text)

    assert message in str(error.value)
    assert str(error.value).startswith(f"weights.py:{line}: " if line else "weights.py:")


HUGE = [
    "a = 10**10**10",
    "a = 'a' * 10**9",
    "a = [0] * 10**12",
    "a = range(10**12)",
    "a = list(range(10**7))",
    "a = 1 << 10**9",
    "a = 9\nfor i in range(99):\n    a = a * a",
    "a = 'ab'\nfor i in range(99):\n    a += a",
    "a = []\nfor i in range(99):\n    a = [a, a]\nb = str(a)",
    "a = ()\nfor i in range(100_000):\n    a = (a,)\nb = {a: 1}",
    "a = ()\nfor i in range(60):\n    a = (a, a)\nb = a == a",
    "a = [1]\nfor x in a:\n    a.append(x)",
    "a = [x for x in range(10**4) for y in range(10**4)]",
    "a = f'{1:1000000000}'",
    "a = f'{1:{10**9}}'",
    "a = '%1000000000d' % 1",
    "a = '%*d' % (10**9, 1)",
    "a = '{:{}}'.format(1, 10**9)",
    "a = 'a'.ljust(10**10)",
    "a = 'a' * 1000\na = a.replace('a', a).replace('a', a)",
    "a = round(5, -10**9)",
    "a = ','.join('x' * 10**6 for x in range(10**6))",
    "a = sum(sum(range(10**6)) for x in range(10**6))",
    "a = {}\na['self'] = a\nb = f'{a}'",
    "a = []\nfor i in range(60):\n    a = [a, a]\nassert False, a",
    "import math\na = []\nfor i in range(60):\n    a = [a, a]\nb = math.floor(a)",
    "a = [0] * 10**6\nb = [a.copy() for x in range(10**5)]",
    "a = [0] * 10**6\nb = [x in a for x in range(1, 10**6)]",
    "a = list(zip(*([range(10**6)] * 1000)))",
]


@pytest.mark.parametrize("text", HUGE)
def test_a_catalogue_that_asks_for_too_much_is_refused_before_it_takes_time_or_memory(text: str) -> None:
    started = time.process_time()

    with pytest.raises(ConfigError, match=r"weights.py:.*cannot be read as data"):
        read(text)

    assert time.process_time() - started < 20


def test_neighbouring_files_are_read_as_data_too() -> None:
    Path("common_weights.py").write_text("SCALE = 2\nBASE = {'a': 1}\n_hidden = 1\n")
    Path("pack").mkdir()
    Path("pack/__init__.py").write_text("from .inner import EXTRA\n")
    Path("pack/inner.py").write_text("from . import deeper\nfrom .deeper import *\nEXTRA = {'e': deeper.N}\n")
    Path("pack/deeper.py").write_text("__all__ = ['N']\nN = 5\nM = 6\n")

    names = read(
        "import common_weights as cw\nimport pack.deeper\nimport common_weights\n"
        "from common_weights import BASE as base, SCALE\n"
        "from common_weights import *\nfrom pack import EXTRA\n"
        "w = {**base, **BASE, 'b': cw.SCALE * SCALE, **EXTRA, 'm': pack.deeper.M, 'c': common_weights.SCALE}\n"
    )

    assert list(names["w"].items()) == [("a", 1), ("b", 4), ("e", 5), ("m", 6), ("c", 2)]
    assert "_hidden" not in names


def test_neighbours_read_as_python_imports_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Path("family").mkdir()
    Path("family/__init__.py").write_text("")
    Path("family/base.py").write_text("W = {'a': 1}\n")
    Path("family/weights.py").write_text(
        "from .base import W\nfrom . import base\nimport family.base\nV = {**W, **base.W, 'n': family.base.W}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    as_data = read_catalog("family.weights", allow_code=False, where=WHERE).attribute("V")

    assert as_data == importlib.import_module("family.weights").V


def test_an_import_cycle_is_named() -> None:
    Path("one.py").write_text("from two import B\nA = 1\n")
    Path("two.py").write_text("from one import A\nB = 1\n")

    with pytest.raises(ConfigError, match=r"one.py -> two.py -> one.py"):
        read_catalog("one", allow_code=False, where=WHERE)


def test_a_neighbour_that_is_not_data_is_refused_at_its_own_line() -> None:
    Path("other.py").write_text("import os\n\nos.system('touch ran')\n")

    with pytest.raises(ConfigError, match=r"other.py:3: .*os.system"):
        read("from other import x\n")
    assert not Path("ran").exists()


def test_the_working_directory_comes_before_catalogs_and_both_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path = tmp_path / "elsewhere"
    places = ((on_path, 3), (tmp_path / "catalogs", 2), (tmp_path, 1))
    for folder, _ in places:
        folder.mkdir(exist_ok=True)
    monkeypatch.syspath_prepend(str(on_path))
    found = []
    for folder, value in places:
        (folder / "weights.py").write_text(f"w = {value}\n")
        catalog = read_catalog("weights", allow_code=False, where=WHERE)
        found.append((catalog.path.parent, catalog.attribute("w")))

    assert found == [(on_path, 3), (tmp_path / "catalogs", 2), (tmp_path, 1)]


def test_a_missing_module_lists_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_catalog("deep.er.weights", allow_code=False, where=WHERE)

    assert str(error.value).startswith(WHERE)
    assert str(tmp_path / "deep" / "er" / "weights.py") in str(error.value)


def test_a_missing_attribute_lists_the_dictionaries_there_are() -> None:
    Path("weights.py").write_text("stage_one = {}\nstage_two = {}\nn = 3\n")

    with pytest.raises(
        ConfigError, match=r"weights.py: has no 'stage_on'; did you mean 'stage_one'.*stage_one, stage_two\)"
    ):
        read_catalog("weights", allow_code=False, where=WHERE).attribute("stage_on")


def test_a_parent_package_is_not_imported_to_find_a_catalogue() -> None:
    Path("pack").mkdir()
    Path("pack/__init__.py").write_text("open('ran', 'w')\n")
    Path("pack/weights.py").write_text("w = {'a': 1}\n")

    assert read_catalog("pack.weights", allow_code=False, where=WHERE).attribute("w") == {"a": 1}
    assert not Path("ran").exists()


CODE = HEADER + (
    "from projects.cosmos3.vlm import datasets\nimport neighbour\nimport json\n"
    "def make(n):\n    return {f'd{i}': DataSource({'train': 'w'}, ['texts']) for i in range(n)}\n"
    "DATAINFO = make(2)\nweights = json.loads('{\"d0\": 1}') | neighbour.MORE\n"
)


def test_allowed_code_is_imported_with_a_stand_in_that_leaves_no_trace() -> None:
    Path("neighbour.py").write_text("MORE = {'d1': 2}\n")
    Path("coded.py").write_text(CODE)
    path_before, meta_before = list(sys.path), list(sys.meta_path)

    catalog = read_catalog("coded", allow_code=True, where=WHERE)

    assert catalog.attribute("weights") == {"d0": 1, "d1": 2}
    assert catalog.attribute("DATAINFO")["d1"] == DataSource({"train": "w"}, ["texts"])
    assert not {"coded", "neighbour", "projects", "projects.cosmos3.vlm.datasets.utils"} & sys.modules.keys()
    assert (sys.path, sys.meta_path) == (path_before, meta_before)


@pytest.mark.parametrize("raised", ["1 / 0", "raise SystemExit(3)", "raise KeyboardInterrupt.__base__('odd')"])
def test_an_exception_of_allowed_code_is_named_with_its_line(raised: str) -> None:
    Path("coded.py").write_text(f"import json\n\n{raised}\n")

    with pytest.raises(ConfigError if "Keyboard" not in raised else BaseException) as error:
        read_catalog("coded", allow_code=True, where=WHERE)

    if isinstance(error.value, ConfigError):
        assert str(error.value).startswith("coded.py:3: importing it raised ")
    assert "coded" not in sys.modules
