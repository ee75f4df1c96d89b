"""What the statements of a catalogue module bind: an evaluator of a restricted Python, in which nothing runs."""

import ast
from typing import Any, Protocol

from vlm_catalogs.catalog_language.arithmetic import apply_binary, is_true
from vlm_catalogs.catalog_language.expressions import PYTHON_ERRORS, Expressions, Scope, describe_node, set_field
from vlm_catalogs.catalog_language.limits import Budget, refuse_code
from vlm_catalogs.catalog_language.values import CatalogModule, DataSource, NotDataError, Opaque

BREAK, CONTINUE = "break", "continue"


class Importer(Protocol):
    """What import statements ask for."""

    def load(self, dotted: str, level: int) -> CatalogModule | Opaque:
        """The module of that name as seen from the module being read."""

    def load_top(self, dotted: str) -> CatalogModule | Opaque:
        """What ``import a.b.c`` binds: the module ``a``."""

    def load_member(self, owner: CatalogModule | Opaque, name: str) -> Any:
        """What ``from owner import name`` binds. Raises ImportError."""


class Statements(Expressions):
    """The evaluator of one module's statements."""

    def __init__(self, budget: Budget, file: str, importer: Importer) -> None:
        super().__init__(budget, file)
        self.importer = importer

    def run_module(self, tree: ast.Module, names: dict[str, Any]) -> None:
        """Bind into ``names`` what the module binds. Raises ConfigError with file and line."""
        try:
            self._run_block(tree.body, Scope(names))
        except RecursionError as error:
            raise self.located(NotDataError("an expression nested too deeply"), self.line) from error

    def _run_block(self, body: list[ast.stmt], scope: Scope) -> str | None:
        """BREAK or CONTINUE when a loop around the block is asked to."""
        for statement in body:
            signal = self._run(statement, scope)
            if signal:
                return signal
        return None

    def _run(self, node: ast.stmt, scope: Scope) -> str | None:
        self.line = node.lineno
        handler = getattr(self, f"_run_{type(node).__name__}", None)
        try:
            self.budget.spend()
            if handler is None:
                raise NotDataError(f"`{describe_node(node)}`")
            signal: str | None = handler(node, scope)
            return signal
        except RecursionError:
            raise
        except (NotDataError, *PYTHON_ERRORS) as error:
            raise self.located(error, node.lineno) from error

    def _run_Expr(self, node: ast.Expr, scope: Scope) -> None:
        self.evaluate(node.value, scope)

    def _run_Pass(self, _node: ast.Pass, _scope: Scope) -> None:
        pass

    def _run_Break(self, _node: ast.Break, _scope: Scope) -> str:
        return BREAK

    def _run_Continue(self, _node: ast.Continue, _scope: Scope) -> str:
        return CONTINUE

    def _run_Assign(self, node: ast.Assign, scope: Scope) -> None:
        value = self.evaluate(node.value, scope)
        for target in node.targets:
            self.assign(target, value, scope)

    def _run_AnnAssign(self, node: ast.AnnAssign, scope: Scope) -> None:
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value, scope), scope)

    def _run_AugAssign(self, node: ast.AugAssign, scope: Scope) -> None:
        if isinstance(node.target, ast.Subscript):
            owner = self.evaluate(node.target.value, scope)
            refuse_code(owner)
            index = self.evaluate(node.target.slice, scope)
            self.budget.survey(*([] if isinstance(index, slice) else [index]))
            self.set_item(owner, index, self._augmented(owner[index], node, scope))
        elif isinstance(node.target, ast.Attribute):
            owner = self.evaluate(node.target.value, scope)
            current = self.attribute_of(owner, node.target.attr)
            set_field(owner, node.target.attr, self._augmented(current, node, scope))
        else:
            current = scope.find(node.target.id)
            scope.names[node.target.id] = self._augmented(current, node, scope)

    def _augmented(self, current: Any, node: ast.AugAssign, scope: Scope) -> Any:
        return apply_binary(self.budget, node.op, current, self.evaluate(node.value, scope), in_place=True)

    def _run_Delete(self, node: ast.Delete, scope: Scope) -> None:
        for target in node.targets:
            self._delete(target, scope)

    def _delete(self, target: ast.expr, scope: Scope) -> None:
        if isinstance(target, ast.Name):
            if target.id not in scope.names:
                raise NameError(f"name {target.id!r} is not defined")
            del scope.names[target.id]
        elif isinstance(target, ast.Subscript):
            owner = self.evaluate(target.value, scope)
            refuse_code(owner)
            index = self.evaluate(target.slice, scope)
            self.budget.survey(*([] if isinstance(index, slice) else [index]))
            del owner[index]
        else:
            raise NotDataError(f"`del {describe_node(target)}`")

    def _run_If(self, node: ast.If, scope: Scope) -> str | None:
        chosen = node.body if is_true(self.evaluate(node.test, scope)) else node.orelse
        return self._run_block(chosen, scope)

    def _run_For(self, node: ast.For, scope: Scope) -> str | None:
        for item in self.budget.iterate(self.evaluate(node.iter, scope)):
            self.assign(node.target, item, scope)
            if self._run_block(node.body, scope) == BREAK:
                return None
        return self._run_block(node.orelse, scope)

    def _run_Assert(self, node: ast.Assert, scope: Scope) -> None:
        if not is_true(self.evaluate(node.test, scope)):
            message = "" if node.msg is None else self.evaluate(node.msg, scope)
            self.budget.survey(message)
            raise AssertionError(message)

    def _run_FunctionDef(self, node: ast.FunctionDef, scope: Scope) -> None:
        scope.names[node.name] = Opaque(f"the function {node.name}")

    def _run_AsyncFunctionDef(self, node: ast.AsyncFunctionDef, scope: Scope) -> None:
        scope.names[node.name] = Opaque(f"the function {node.name}")

    def _run_ClassDef(self, node: ast.ClassDef, scope: Scope) -> None:
        scope.names[node.name] = Opaque(f"the class {node.name}")

    def _run_Import(self, node: ast.Import, scope: Scope) -> None:
        for alias in node.names:
            if alias.asname:
                scope.names[alias.asname] = self.importer.load(alias.name, 0)
            else:
                scope.names[alias.name.partition(".")[0]] = self.importer.load_top(alias.name)

    def _run_ImportFrom(self, node: ast.ImportFrom, scope: Scope) -> None:
        if node.module == "__future__":
            return
        owner = self.importer.load(node.module or "", node.level)
        for alias in node.names:
            if alias.name == "*":
                scope.names.update(self._starred_names(owner))
            else:
                scope.names[alias.asname or alias.name] = self.importer.load_member(owner, alias.name)

    def _starred_names(self, owner: CatalogModule | Opaque) -> dict[str, Any]:
        if isinstance(owner, Opaque):
            source = owner.attribute("DataSource")
            return {"DataSource": source} if source is DataSource else {}
        return {name: self.importer.load_member(owner, name) for name in owner.public_names()}
