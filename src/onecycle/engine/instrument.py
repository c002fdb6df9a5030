"""Rewrite a user's function so that it asks before it reads, writes or calls anything outside its local variables.

The function is compiled again from its source, in which `a.b`, `a[i]` and `f(x)` became calls of a `Checks` object.
Names of globals are looked up in a dict that reports them. Everything else (control flow, arithmetic, local variables,
exceptions) is executed by Python itself.

The source is used only if it compiles to the very bytecode of the function: a file that was edited after its import
would describe another program.
"""

import ast
import builtins
import linecache
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, Protocol

from onecycle.engine.trace import CannotCaptureError

_CHECKS = "__onecycle_checks__"  # the name of the Checks object in rewritten code
_STATELESS_PACKAGES = frozenset({"torch", "math", "numpy", "typing", "functools", "itertools", "collections"})
ABSENT: Any = object()  # the value of a global or attribute that does not exist


class Checks(Protocol):
    """What rewritten code calls in place of the operations of Python."""

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function."""
        ...

    def get(self, owner: Any, name: str, /) -> Any:
        """Return an attribute."""
        ...

    def slot(self, owner: Any, name: str, /) -> Any:
        """Return an object whose attribute `value` is the attribute `name` of `owner`, to be set or deleted."""
        ...

    def items(self, owner: Any, in_place: bool = False, /) -> Any:
        """Return an object whose items are those of `owner`; `in_place` if an item is about to be changed."""
        ...

    def changing(self, value: Any, /) -> Any:
        """Return a value that is about to be changed in place."""
        ...

    def read_global(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        """Take note that a global was read."""
        ...


class _Globals(dict[str, Any]):
    """The globals of rewritten code: the function's own ones, and each look-up is reported.

    CPython calls `__getitem__` for a global if the dict is of a subclass (the slow path of LOAD_GLOBAL).
    """

    def __init__(self, namespace: dict[str, Any], checks: Checks) -> None:
        super().__init__(__builtins__=namespace.get("__builtins__", builtins))
        self._namespace, self._checks = namespace, checks

    def __getitem__(self, name: str) -> Any:
        if name == _CHECKS:
            return self._checks
        if name == "__builtins__":
            return super().__getitem__(name)
        value = self._namespace.get(name, ABSENT)
        self._checks.read_global(self._namespace, name, value)
        if value is ABSENT:
            raise KeyError(name)  # a builtin, or a NameError
        return value


def is_instrumented(namespace: Any) -> bool:
    """Whether these are the globals of rewritten code."""
    return isinstance(namespace, _Globals)


def instrument(function: FunctionType, checks: Checks) -> FunctionType:
    """Return `function` rewritten to ask `checks`. Raises CannotCaptureError if its source is not at hand."""
    code = _rewritten(function.__code__)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    namespace = _Globals(function.__globals__, checks)
    rewritten = FunctionType(code, namespace, function.__name__, function.__defaults__, closure)
    rewritten.__kwdefaults__ = function.__kwdefaults__
    return rewritten


_code_of: dict[tuple[CodeType, str], CodeType] = {}  # code objects of two files may be equal
_tree_of: dict[str, tuple[list[str], ast.Module, list[ast.stmt]]] = {}


def _rewritten(code: CodeType) -> CodeType:
    key = code, code.co_filename
    if key not in _code_of:
        node = _node_of(code)
        tree = _in_context(node, code)
        _Rewriter(_class_name(code), code).visit_function(node)
        ast.fix_missing_locations(tree)
        flags = code.co_flags & _FUTURES
        rewritten = _find(compile(tree, code.co_filename, "exec", flags, dont_inherit=True), code)
        assert rewritten is not None  # it was found before it was rewritten
        _code_of[key] = rewritten.replace(co_qualname=code.co_qualname)
    return _code_of[key]


_FUTURES = 0x1FF0000  # the flags of `from __future__ import …`


def _node_of(code: CodeType) -> ast.FunctionDef | ast.Lambda:
    """Return the node of a function in the syntax tree of its file, which must not be shared: it will be changed."""
    lines = linecache.getlines(code.co_filename)
    if not lines:
        raise CannotCaptureError(f"the source of {code.co_qualname} is not at hand", "define it in a file or notebook")
    known = _tree_of.get(code.co_filename)
    if known is None or known[0] is not lines:
        try:
            module = ast.parse("".join(lines))
            known = _tree_of[code.co_filename] = lines, module, list(_imports(module.body))
        except SyntaxError as error:
            raise CannotCaptureError(f"the source of {code.co_qualname} is not Python any more") from error
    found: list[ast.FunctionDef | ast.Lambda] = []
    for node in ast.walk(known[1]):
        if code.co_name == "<lambda>" and isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno:
            found.append(node)
        elif isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first == code.co_firstlineno:
                found.append(node)
    for node in found:  # several lambdas may stand in one line
        copy = _copied(node)
        tree = _in_context(copy, code)
        compiled = compile(tree, code.co_filename, "exec", code.co_flags & _FUTURES, dont_inherit=True)
        original = _find(compiled, code)
        if original is not None and _is_same(original, code):
            return _copied(node)
    raise CannotCaptureError(f"the source of {code.co_qualname} is not the one that was imported")


def _imports(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The imports of a module, for the compiler treats calls of what was imported in its own way."""
    for statement in statements:
        if isinstance(statement, ast.Import) or (
            isinstance(statement, ast.ImportFrom) and statement.module != "__future__"
        ):
            yield statement
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for name in ("body", "orelse", "handlers", "finalbody"):
                yield from _imports(getattr(statement, name, []))


def _copied(node: Any) -> Any:
    """Copy a tree of nodes (copy.deepcopy takes ten times as long)."""
    if isinstance(node, list):
        return [_copied(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    copy = type(node)(**{name: _copied(value) for name, value in ast.iter_fields(node)})
    return ast.copy_location(copy, node)


def _class_name(code: CodeType) -> str:
    """The name of the class whose method it is, or ""."""
    _, _, parent = code.co_qualname.rpartition(".")[0].rpartition(".")
    return "" if parent in ("", "<locals>") else parent


def _in_context(node: ast.FunctionDef | ast.Lambda, code: CodeType) -> ast.Module:
    """Return a module in which the function sees the same free variables, and the same class for private names."""
    if isinstance(node, ast.FunctionDef):
        node.decorator_list, node.returns = [], None
        statement: ast.stmt = node
    else:
        statement = ast.Expr(node)
    name = _class_name(code)
    if name:
        statement = ast.ClassDef(name=name, bases=[], keywords=[], body=[statement], decorator_list=[])
        statement.__dict__.setdefault("type_params", [])
    body: list[ast.stmt] = [statement]
    outer = [n for n in (node.name if isinstance(node, ast.FunctionDef) else "", name) if n]
    if names := [n for n in dict.fromkeys(outer) if n not in code.co_freevars]:
        body.insert(0, ast.Global(names))
    free = [ast.arg(arg=n) for n in code.co_freevars]
    arguments = ast.arguments(posonlyargs=[], args=free, kwonlyargs=[], kw_defaults=[], defaults=[])
    factory = ast.FunctionDef(name="factory", args=arguments, body=body, decorator_list=[])
    factory.__dict__.setdefault("type_params", [])
    imports = _tree_of[code.co_filename][2]
    return ast.fix_missing_locations(ast.Module([*imports, factory], []))


def _find(module: CodeType, code: CodeType) -> CodeType | None:
    """Return the code of the function that `_in_context` wrapped."""
    inner = [constant for constant in module.co_consts if isinstance(constant, CodeType)]
    for level in range(3):
        for candidate in inner:
            if level and candidate.co_name == code.co_name and candidate.co_firstlineno >= code.co_firstlineno:
                return candidate
        inner = [constant for outer in inner for constant in outer.co_consts if isinstance(constant, CodeType)]
    return None


def _is_same(a: Any, b: Any) -> bool:
    """Whether two code objects do the same; where they stand in their files does not matter."""
    if not isinstance(a, CodeType) or not isinstance(b, CodeType):
        return type(a) is type(b) and repr(a) == repr(b)
    names = ("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_argcount", "co_kwonlyargcount")
    if any(getattr(a, name) != getattr(b, name) for name in names) or len(a.co_consts) != len(b.co_consts):
        return False
    return all(map(_is_same, a.co_consts, b.co_consts))


class _Rewriter(ast.NodeTransformer):
    """Replaces the operations that `Checks` has methods for."""

    def __init__(self, class_name: str, code: CodeType) -> None:
        self._class_name, self._code = class_name.lstrip("_"), code

    def visit_function(self, node: ast.FunctionDef | ast.Lambda) -> None:
        """Rewrite the body; defaults were computed when the function was defined."""
        if isinstance(node, ast.Lambda):
            node.body = self.visit(node.body)
        else:
            visited = [self.visit(statement) for statement in node.body]
            node.body = [part for parts in visited for part in (parts if isinstance(parts, list) else [parts])]  # pyright: ignore[reportUnknownVariableType] -- statements
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None

    def _check(self, node: ast.expr | ast.stmt, method: str, *args: ast.expr) -> ast.expr:
        function = ast.Attribute(ast.Name(_CHECKS, ast.Load()), method, ast.Load())
        return ast.copy_location(ast.Call(function, list(args), []), node)

    def _name(self, name: str) -> ast.expr:
        if self._class_name and name.startswith("__") and not name.endswith("__"):
            name = f"_{self._class_name}{name}"
        return ast.Constant(name)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        owner = self.visit(node.value)
        if isinstance(node.ctx, ast.Load):
            return self._check(node, "get", owner, self._name(node.attr))
        slot = self._check(node, "slot", owner, self._name(node.attr))
        return ast.copy_location(ast.Attribute(slot, "value", node.ctx), node)

    def visit_Subscript(self, node: ast.Subscript, *extra: ast.expr) -> ast.expr:
        owner = self._check(node, "items", self.visit(node.value), *extra)
        return ast.copy_location(ast.Subscript(owner, self.visit(node.slice), node.ctx), node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args:
            return node  # it looks at the frame that calls it
        args = [self.visit(node.func), *(self.visit(arg) for arg in node.args)]
        keywords = [ast.keyword(keyword.arg, self.visit(keyword.value)) for keyword in node.keywords]
        function = ast.Attribute(ast.Name(_CHECKS, ast.Load()), "call", ast.Load())
        return ast.copy_location(ast.Call(function, args, keywords), node)

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        value = self.visit(node.value)
        if isinstance(node.target, ast.Name):
            before = self._check(node, "changing", ast.Name(node.target.id, ast.Load()))
            load = ast.copy_location(ast.Assign([ast.Name(node.target.id, ast.Store())], before), node)
            return [load, ast.copy_location(ast.AugAssign(node.target, node.op, value), node)]
        if isinstance(node.target, ast.Subscript):
            target: Any = self.visit_Subscript(node.target, ast.Constant(True))
        else:
            target = self.visit(node.target)
        return ast.copy_location(ast.AugAssign(target, node.op, value), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        if node.decorator_list:
            self._refuse(node, "defines a decorated function")
        node.returns = None
        arguments = node.args
        arguments.defaults = [self.visit(default) for default in arguments.defaults]
        arguments.kw_defaults = [default and self.visit(default) for default in arguments.kw_defaults]
        self.visit_function(node)
        return node

    def visit_Global(self, node: ast.Global) -> ast.stmt:
        self._refuse(node, f"assigns the global {node.names[0]}")
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.stmt:
        if outer := [name for name in node.names if name in self._code.co_freevars]:
            self._refuse(node, f"assigns the variable {outer[0]} of an enclosing function")
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            return node
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        if node.level or (node.module or "").partition(".")[0] not in _STATELESS_PACKAGES:
            self._refuse(node, f"imports from {'.' * node.level}{node.module or ''}")
        return node

    def visit_Match(self, node: ast.Match) -> ast.stmt:
        for part in ast.walk(node):
            if isinstance(part, ast.MatchClass | ast.MatchMapping) or (
                isinstance(part, ast.MatchValue) and not isinstance(part.value, ast.Constant)
            ):
                self._refuse(node, "matches a pattern with attributes")
        return self.generic_visit(node)  # pyright: ignore[reportReturnType] -- the same node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.stmt:
        self._refuse(node, "defines a class")
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.stmt:
        self._refuse(node, "defines an async function")
        return node

    def _refuse(self, node: Any, what: str) -> None:
        raise CannotCaptureError(f"{self._code.co_qualname} {what} ({short_path(self._code)}:{node.lineno})")


def short_path(code: CodeType) -> str:
    """The name of a function's file, without its folder."""
    return code.co_filename.replace("\\", "/").rpartition("/")[2]
