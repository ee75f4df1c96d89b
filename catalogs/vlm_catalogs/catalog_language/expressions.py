"""What an expression of a catalogue module comes to: the tree is walked and computed here, Python never runs it."""

import ast
import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vlm_catalogs.catalog_language.arithmetic import (
    apply_binary,
    apply_unary,
    compare,
    format_value,
    is_true,
)
from vlm_catalogs.catalog_language.calls import BUILTINS, call_builtin, call_method, check_method
from vlm_catalogs.catalog_language.limits import Budget, describe_code, refuse_code
from vlm_catalogs.catalog_language.values import (
    SOURCE_FIELDS,
    Builtin,
    CatalogModule,
    DataSource,
    NotDataError,
    Opaque,
    TypingName,
    build_source,
)
from vlm_catalogs.errors import ConfigError

PYTHON_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the module itself would raise when Python ran it."""

CONVERSIONS: dict[str, Callable[[Any], str]] = {"s": str, "r": repr, "a": ascii}


@dataclass(frozen=True, slots=True)
class Scope:
    """Names of the module, or of one comprehension inside it."""

    names: dict[str, Any]
    outer: "Scope | None" = None

    def find(self, name: str) -> Any:
        """The value of a name. Code is a value too, until it is used. Raises NameError."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        if name in BUILTINS:
            return BUILTINS[name]
        if hasattr(builtins, name):
            return Opaque(f"{name}()" if callable(getattr(builtins, name)) else name)
        raise NameError(f"name {name!r} is not defined")

    @property
    def module(self) -> "Scope":
        """The scope that ``:=`` binds in."""
        return self if self.outer is None else self.outer.module


class Expressions:
    """The evaluator of one module's expressions."""

    def __init__(self, budget: Budget, file: str) -> None:
        self.budget = budget
        self.file = file
        self.line = 1
        """Of the node last begun: where a nesting that is too deep was met."""

    def evaluate(self, node: ast.AST, scope: Scope) -> Any:
        """The value of a node. Raises ConfigError with file and line."""
        self.line = getattr(node, "lineno", self.line)
        handler: Callable[[Any, Scope], Any] | None = getattr(self, f"_eval_{type(node).__name__}", None)
        with_location = self.line
        try:
            self.budget.spend()
            if handler is None:
                raise NotDataError(f"`{describe_node(node)}`")
            return handler(node, scope)
        except RecursionError:
            raise
        except (NotDataError, *PYTHON_ERRORS) as error:
            raise self.located(error, with_location) from error

    def located(self, error: Exception, line: int) -> ConfigError:
        """The error as the user sees it."""
        if isinstance(error, NotDataError):
            return not_data(f"{self.file}:{line}", str(error))
        return ConfigError(f"{self.file}:{line}: {type(error).__name__}: {error}")

    def _eval_Constant(self, node: ast.Constant, _scope: Scope) -> Any:
        return self.budget.admit(node.value)

    def _eval_Name(self, node: ast.Name, scope: Scope) -> Any:
        return scope.find(node.id)

    def _eval_NamedExpr(self, node: ast.NamedExpr, scope: Scope) -> Any:
        value = self.evaluate(node.value, scope)
        scope.module.names[node.target.id] = value
        return value

    def _eval_Attribute(self, node: ast.Attribute, scope: Scope) -> Any:
        return self.attribute_of(self.evaluate(node.value, scope), node.attr)

    def attribute_of(self, owner: Any, name: str) -> Any:
        """``owner.name``, where that is data."""
        if isinstance(owner, Opaque):
            return owner.attribute(name)
        if isinstance(owner, CatalogModule):
            if name not in owner.names:
                raise AttributeError(f"module {owner.name!r} has no attribute {name!r}")
            return owner.names[name]
        if isinstance(owner, DataSource):
            if name not in SOURCE_FIELDS:
                raise AttributeError(f"DataSource has no field {name!r}")
            return getattr(owner, name)
        refuse_code(owner)
        if not hasattr(owner, name):
            raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")
        raise NotDataError(f"the attribute .{name} of a {type(owner).__name__}")

    def _eval_Subscript(self, node: ast.Subscript, scope: Scope) -> Any:
        owner = self.evaluate(node.value, scope)
        if isinstance(owner, TypingName) or (
            isinstance(owner, Builtin) and isinstance(getattr(builtins, owner.name, None), type)
        ):
            return TypingName("a type")
        refuse_code(owner)
        index = self.evaluate(node.slice, scope)
        if isinstance(owner, dict):
            self.budget.survey(index)
        return self.budget.admit(owner[index]) if isinstance(index, slice) else owner[index]

    def _eval_Slice(self, node: ast.Slice, scope: Scope) -> slice:
        return slice(
            *(None if part is None else self.evaluate(part, scope) for part in (node.lower, node.upper, node.step))
        )

    def _eval_BinOp(self, node: ast.BinOp, scope: Scope) -> Any:
        left = self.evaluate(node.left, scope)
        right = self.evaluate(node.right, scope)
        if isinstance(node.op, ast.BitOr) and any(isinstance(side, TypingName) for side in (left, right)):
            return TypingName("a type")
        return apply_binary(self.budget, node.op, left, right)

    def _eval_UnaryOp(self, node: ast.UnaryOp, scope: Scope) -> Any:
        return self.budget.admit(apply_unary(node.op, self.evaluate(node.operand, scope)))

    def _eval_BoolOp(self, node: ast.BoolOp, scope: Scope) -> Any:
        value: Any = None
        for operand in node.values:
            value = self.evaluate(operand, scope)
            if operand is not node.values[-1] and is_true(value) is isinstance(node.op, ast.Or):
                break
        return value

    def _eval_Compare(self, node: ast.Compare, scope: Scope) -> Any:
        left = self.evaluate(node.left, scope)
        result: Any = True
        for kind, operand in zip(node.ops, node.comparators, strict=True):
            right = self.evaluate(operand, scope)
            result = compare(self.budget, kind, left, right)
            if operand is not node.comparators[-1] and not is_true(result):
                break
            left = right
        return result

    def _eval_IfExp(self, node: ast.IfExp, scope: Scope) -> Any:
        chosen = node.body if is_true(self.evaluate(node.test, scope)) else node.orelse
        return self.evaluate(chosen, scope)

    def _eval_JoinedStr(self, node: ast.JoinedStr, scope: Scope) -> str:
        return str(self.budget.admit("".join(str(self.evaluate(part, scope)) for part in node.values)))

    def _eval_FormattedValue(self, node: ast.FormattedValue, scope: Scope) -> str:
        value = self.evaluate(node.value, scope)
        self.budget.survey(value)
        if node.conversion != -1:
            value = CONVERSIONS[chr(node.conversion)](value)
        spec = "" if node.format_spec is None else self.evaluate(node.format_spec, scope)
        return format_value(self.budget, value, spec)

    def _eval_List(self, node: ast.List, scope: Scope) -> list[Any]:
        return list(self._items(node.elts, scope))

    def _eval_Tuple(self, node: ast.Tuple, scope: Scope) -> tuple[Any, ...]:
        return tuple(self._items(node.elts, scope))

    def _eval_Set(self, node: ast.Set, scope: Scope) -> set[Any]:
        return set(self._hashed(self._items(node.elts, scope)))

    def _items(self, nodes: list[ast.expr], scope: Scope) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.budget.iterate(self.evaluate(node.value, scope))
            else:
                yield self.evaluate(node, scope)

    def _hashed(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.budget.survey(item)
            yield item

    def _eval_Dict(self, node: ast.Dict, scope: Scope) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            if key_node is None:
                result.update(self._mapping(self.evaluate(value_node, scope), "**"))
                continue
            key = self.evaluate(key_node, scope)
            value = self.evaluate(value_node, scope)
            self.budget.survey(key)
            result[key] = value
        return result

    def _mapping(self, value: Any, sign: str) -> dict[Any, Any]:
        refuse_code(value)
        if not isinstance(value, dict):
            raise TypeError(f"{type(value).__name__!r} object after {sign} is not a mapping")
        self.budget.spend(len(value) // 4)
        return value

    def _eval_ListComp(self, node: ast.ListComp, scope: Scope) -> list[Any]:
        return list(self._comprehend(node.generators, scope, lambda inner: self.evaluate(node.elt, inner)))

    def _eval_SetComp(self, node: ast.SetComp, scope: Scope) -> set[Any]:
        return set(self._hashed(self._comprehend(node.generators, scope, lambda inner: self.evaluate(node.elt, inner))))

    def _eval_GeneratorExp(self, node: ast.GeneratorExp, scope: Scope) -> Iterator[Any]:
        return self._comprehend(node.generators, scope, lambda inner: self.evaluate(node.elt, inner))

    def _eval_DictComp(self, node: ast.DictComp, scope: Scope) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, value in self._comprehend(node.generators, scope, lambda inner: self._pair(node, inner)):
            self.budget.survey(key)
            result[key] = value
        return result

    def _pair(self, node: ast.DictComp, scope: Scope) -> tuple[Any, Any]:
        return self.evaluate(node.key, scope), self.evaluate(node.value, scope)

    def _comprehend(
        self, clauses: list[ast.comprehension], scope: Scope, produce: Callable[[Scope], Any]
    ) -> Iterator[Any]:
        """Items in order; the first iterable is taken at once and outside, as in Python, the rest inside."""
        first = self.budget.iterate(self.evaluate(clauses[0].iter, scope))
        return self._turns(clauses, first, Scope({}, scope), produce)

    def _turns(
        self, clauses: list[ast.comprehension], items: Iterator[Any], scope: Scope, produce: Callable[[Scope], Any]
    ) -> Iterator[Any]:
        for item in items:
            self.assign(clauses[0].target, item, scope)
            if not all(is_true(self.evaluate(test, scope)) for test in clauses[0].ifs):
                continue
            if len(clauses) == 1:
                yield produce(scope)
            else:
                inner = self.budget.iterate(self.evaluate(clauses[1].iter, scope))
                yield from self._turns(clauses[1:], inner, scope, produce)

    def _eval_Lambda(self, _node: ast.Lambda, _scope: Scope) -> Opaque:
        return Opaque("a lambda")

    def _eval_Call(self, node: ast.Call, scope: Scope) -> Any:
        if isinstance(node.func, ast.Attribute):
            owner = self.evaluate(node.func.value, scope)
            if not isinstance(owner, Opaque | CatalogModule | DataSource):
                check_method(owner, node.func.attr)
                arguments, named = self._arguments(node, scope)
                return call_method(self.budget, owner, node.func.attr, arguments, named)
            function = self.attribute_of(owner, node.func.attr)
        else:
            function = self.evaluate(node.func, scope)
        return self._call(function, node, scope)

    def _call(self, function: Any, node: ast.Call, scope: Scope) -> Any:
        if not (function is DataSource or isinstance(function, Builtin)):
            if isinstance(function, Opaque | CatalogModule):
                raise NotDataError(f"a call of {describe_code(function)}")
            raise TypeError(f"{type(function).__name__!r} object is not callable")
        arguments, named = self._arguments(node, scope)
        if isinstance(function, Builtin):
            return call_builtin(self.budget, function, arguments, named)
        source = build_source(arguments, named)
        source.origin = f"{self.file}:{node.lineno}"
        return source

    def _arguments(self, node: ast.Call, scope: Scope) -> tuple[list[Any], dict[str, Any]]:
        arguments = list(self._items(node.args, scope))
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, scope)
            added = self._mapping(value, "**") if keyword.arg is None else {keyword.arg: value}
            if any(not isinstance(name, str) for name in added):
                raise TypeError("keywords must be strings")
            if repeated := named.keys() & added.keys():
                raise TypeError(f"got multiple values for keyword argument {min(repeated)!r}")
            named.update(added)
        return arguments, named

    def assign(self, target: ast.AST, value: Any, scope: Scope) -> None:
        """Bind a target: a name, a subscript, a field of a DataSource, or a tuple of those."""
        if isinstance(target, ast.Name):
            scope.names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target.elts, value, scope)
        elif isinstance(target, ast.Subscript):
            self.set_item(self.evaluate(target.value, scope), self.evaluate(target.slice, scope), value)
        elif isinstance(target, ast.Attribute):
            set_field(self.evaluate(target.value, scope), target.attr, value)
        else:
            raise NotDataError(f"`{describe_node(target)}`")

    def set_item(self, owner: Any, index: Any, value: Any) -> None:
        """``owner[index] = value``."""
        refuse_code(owner)
        if isinstance(index, slice):
            value = list(self.budget.iterate(value))
            self.budget.spend(len(owner) // 4)
        self.budget.survey(*([] if isinstance(index, slice) else [index]))
        owner[index] = value
        self.budget.admit(owner if isinstance(index, slice) else None)

    def _unpack(self, targets: list[ast.expr], value: Any, scope: Scope) -> None:
        items = list(self.budget.iterate(value))
        starred = [place for place, target in enumerate(targets) if isinstance(target, ast.Starred)]
        missing = len(targets) - len(starred) - len(items)
        if missing > 0 or (missing < 0 and not starred):
            problem = "not enough" if missing > 0 else "too many"
            raise ValueError(f"{problem} values to unpack (expected {len(targets) - len(starred)}, got {len(items)})")
        if starred:
            end = starred[0] - missing
            items[starred[0] : end] = [items[starred[0] : end]]
        for target, item in zip(targets, items, strict=True):
            self.assign(target.value if isinstance(target, ast.Starred) else target, item, scope)


def set_field(owner: Any, name: str, value: Any) -> None:
    """``owner.name = value``, for a DataSource only."""
    if not isinstance(owner, DataSource) or name not in SOURCE_FIELDS:
        raise NotDataError(f"setting the attribute .{name} of a {type(owner).__name__}")
    setattr(owner, name, value)


def describe_node(node: ast.AST) -> str:
    """The beginning of a construct's source."""
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= 60 else f"{text[:60]}..."


def not_data(where: str, construct: str) -> ConfigError:
    """The error for what cannot be read as data: it names the way out."""
    return ConfigError(
        f"{where}: cannot be read as data: {construct}; "
        "set [custom] allow_catalog_code = true to import it as code (it then runs)"
    )
