"""Rewritten code does what the function does, and asks for each read, call and write."""

import linecache
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from onecycle.engine.instrument import instrument
from onecycle.engine.trace import CannotCaptureError

FACTOR = 3


class Slot:
    def __init__(self, checks: "Recording", owner: Any, name: str) -> None:
        object.__setattr__(self, "parts", (checks, owner, name))

    @property
    def value(self) -> Any:
        return getattr(*self.parts[1:])

    @value.setter
    def value(self, value: Any) -> None:
        checks, owner, name = self.parts
        checks.asked.append(f"set {name}")
        setattr(owner, name, value)

    @value.deleter
    def value(self) -> None:
        checks, owner, name = self.parts
        checks.asked.append(f"delete {name}")
        delattr(owner, name)


class Recording:
    """Allows everything and takes note of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def call(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(f"call {function.__name__}")
        return function(*args, **kwargs)

    def get(self, owner: Any, name: str, /) -> Any:
        self.asked.append(f"get {name}")
        return getattr(owner, name)

    def slot(self, owner: Any, name: str, /) -> Any:
        return Slot(self, owner, name)

    def items(self, owner: Any, in_place: bool = False, /) -> Any:
        self.asked.append("change items" if in_place else "items")
        return owner

    def changing(self, value: Any, /) -> Any:
        self.asked.append("change")
        return value

    def read_global(self, namespace: dict[str, Any], name: str, value: Any) -> None:
        self.asked.append(f"global {name}")


def check_same(function: Any, *args: Any, asked: str | None = None) -> list[str]:
    """Compare with the function itself; return what was asked."""
    checks = Recording()
    assert isinstance(function, FunctionType)
    assert instrument(function, checks)(*args) == function(*args)
    if asked is not None:
        assert checks.asked == asked.split(", ")
    return checks.asked


class Base:
    size = 2

    def grow(self, by: int) -> int:
        return self.size + by


class Derived(Base):
    __secret = 5

    def grow(self, by: int, *more: int, times: int = 2, **others: int) -> int:
        return super().grow(by) * times + sum(more) + sum(others.values()) + self.__secret

    def changes(self) -> int:
        self.count: int = 1
        self.count += 4
        self.count, self.other = self.count * 2, 3
        del self.other
        return self.count


def simple(x: int) -> int:
    return x * FACTOR


def containers(n: int) -> dict[str, int]:
    table = {"a": [1, 2, 3]}
    table["a"][0] = n
    table["a"][1:] += [4]
    del table["a"][0]
    total = 0
    for number in table["a"]:
        total += number
    return {"total": total, **{key: len(value) for key, value in table.items()}}


def control(n: int) -> str:
    match n:
        case 1 | 2:
            return "few"
        case _:
            pass
    while n > 3:
        n -= 1
    try:
        return f"{1 / (n - 3):.1f}"
    except ZeroDivisionError as error:
        return str(error)
    finally:
        n = 0


def nested(n: int) -> int:
    def inner(k: int = FACTOR) -> int:
        nonlocal n
        n += k
        return (lambda z: z + n)(k)

    return inner() + sum(i for i in range(n)) + [j * 2 for j in (n, 1)][-1]


two, lines = lambda x: x + 1, lambda x: x + 2


def test_it_asks_for_what_is_not_local():
    check_same(simple, 2, asked="global FACTOR")
    check_same(containers, 7)
    check_same(nested, 4)
    for n in (1, 5):
        check_same(control, n)
    check_same(two, 1)
    check_same(lines, 1)


def test_methods_keep_super_and_private_names():
    asked = check_same(Derived.grow, Derived(), 1, 2, 3)
    assert "get _Derived__secret" in asked
    assert "call grow" in asked
    asked = check_same(Derived.changes, Derived())
    assert asked == ["set count", "set count", "get count", "set count", "set other", "delete other", "get count"]


def test_closures_keep_their_cells():
    box = [1]

    def reads(x: int) -> int:
        return x + box[0] * FACTOR

    check_same(reads, 2)
    box[0] = 10
    check_same(reads, 2)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    global y\n    y = x\n",
        "def f(x):\n    class A: pass\n    return A\n",
        "def f(x):\n    from somewhere import y\n    return y\n",
        "def f(x):\n    import functools\n    @functools.cache\n    def g(): return x\n    return g()\n",
        "def f(x):\n    match x:\n        case int(real=1): return 1\n",
        "async def f(x):\n    return x\n",
    ],
)
def test_what_cannot_be_rewritten_is_refused(source: str, module_of: Callable[[str], dict[str, Any]]):
    with pytest.raises(CannotCaptureError):
        instrument(module_of(source)["f"], Recording())


def test_another_source_than_the_imported_one_is_refused(module_of: Callable[[str], dict[str, Any]]):
    namespace = module_of("def f(x):\n    return x + 1\n")
    file = namespace["f"].__code__.co_filename
    with open(file, "w") as changed:  # noqa: PTH123 -- the edit of a user
        changed.write("def f(x):\n    return x + 2\n")
    linecache.clearcache()
    with pytest.raises(CannotCaptureError, match="the source of f is not the one that was imported"):
        instrument(namespace["f"], Recording())


def test_without_a_source_it_is_refused():
    namespace: dict[str, Any] = {}
    exec("def f(x): return x", namespace)
    with pytest.raises(CannotCaptureError, match="the source of f is not at hand"):
        instrument(namespace["f"], Recording())


@pytest.fixture
def module_of(tmp_path: Any) -> Callable[[str], dict[str, Any]]:
    """Run source text from a file, as an import does; return its globals."""

    def run(source: str) -> dict[str, Any]:
        file = tmp_path / "user.py"
        file.write_text(source)
        namespace: dict[str, Any] = {"__name__": "user"}
        exec(compile(source, str(file), "exec"), namespace)
        return namespace

    return run
