"""The machine that a pickle's opcodes work on: a position in the file, a stack with marks, and a memo.

Why not `pickle.Unpickler` with a strict `find_class`? Because an allow-list of globals does not hold it back enough:
- a dict key of tuples that share each other takes for ever to hash, one nested deeply enough crashes the interpreter;
- BUILD sets attributes on whatever `find_class` returned, for instance a function's `__code__`;
- it copies an array twice on the way from the file.
This machine knows stand-ins only, checks keys before they are hashed, and leaves arrays where they lie in the file.
Which opcode does what is in pickle_opcodes.py.
"""

import codecs
import re
from collections.abc import Callable
from typing import cast

from onecycle.core.opening import Budget
from onecycle.data.pickle_arrays import GLOBALS, Array, Damaged, DType, Global, Span, Unsafe, items_of, shown

_LINE = 1000  # characters in a number or a name; keeps int("999...") from taking for ever
_LONG = 1024  # bytes in an integer
_SHORT = 256  # bytes; shorter runs are made into text or bytes at once
_PYTHON_2_TEXT = re.compile(rb"""(?:[^\\]|\\[\\'"nrt]|\\x[0-9a-fA-F]{2})*+""", re.DOTALL)


class Machine:
    """One run over the bytes of one pickle. `start` is the position of the opcode being carried out."""

    def __init__(self, content: bytearray, budget: Budget) -> None:
        self.content, self.view, self.budget = content, memoryview(content), budget
        self.start = self.position = 0
        self.stack: list[object] = []
        self.marked: list[list[object]] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}

    def result(self) -> object:
        """The one value that a whole pickle leaves, stand-ins in it."""
        if self.marked or len(self.stack) != 1:
            raise Damaged("ends with more or less than one value")
        if self.position != len(self.view):
            raise Damaged(f"has {len(self.view) - self.position:,} bytes after its end")
        return self.stack.pop()

    # reading arguments

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        taken = self.view[self.position : self.position + count]
        if len(taken) < count:
            raise Damaged(f"is cut short: {count:,} bytes should follow, {len(taken):,} do")
        self.position += count
        return taken

    def number(self, width: int, signed: bool = False) -> int:
        """The next little-endian integer of `width` bytes."""
        if width > _LONG:
            raise Damaged(f"holds an integer of {width:,} bytes; expected at most {_LONG:,}")
        return int.from_bytes(self.take(width), "little", signed=signed)

    def line(self, limit: int | None = _LINE) -> bytes:
        """The next bytes up to a line feed."""
        end = self.content.find(b"\n", self.position, None if limit is None else self.position + limit)
        if end < 0:
            raise Damaged("is cut short: a line without end")
        return bytes(self.take(end + 1 - self.position)[:-1])

    def run_of(self, view: memoryview, make: Callable[[memoryview], object]) -> object:
        """Text or bytes; a long run stays where it is, because it may be an array's content."""
        return make(view) if len(view) <= _SHORT else Span(view, make, self.budget)

    def text(self, raw: memoryview | bytes, encoding: str) -> str:
        """Decoded text, which may take four times the bytes."""
        self.budget.spend(4 * len(raw))
        return str(raw, encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def python_2_line(self) -> object:
        """A quoted, escaped line: the text of protocol 0 from Python 2."""
        quoted = self.line(limit=None)
        inside = quoted[1:-1]
        if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
            raise Damaged("holds text without quotes")
        if not _PYTHON_2_TEXT.fullmatch(inside):
            raise Damaged("holds text with an unknown escape")
        self.budget.spend(2 * len(inside))
        return self.run_of(memoryview(codecs.escape_decode(inside)[0]), latin1)

    # the stack

    def pop(self, count: int) -> tuple[object, ...]:
        """The top `count` values, in order."""
        if count > len(self.stack):
            raise Damaged("takes more values than there are")
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return values

    def pop_mark(self) -> list[object]:
        """Everything above the last mark."""
        if not self.marked:
            raise Damaged("looks for a mark that was never set")
        above, self.stack = self.stack, self.marked.pop()
        return above

    def mark(self) -> None:
        """Set a mark."""
        self.marked.append(self.stack)
        self.stack = []

    def remember(self, index: int) -> None:
        """Store the top value under `index`."""
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> object:
        """The value stored under `index`."""
        if index not in self.memo:
            raise Damaged(f"recalls the value {shown(index)}, which it never stored")
        return self.memo[index]

    def extend(self, items: list[object] | tuple[object, ...]) -> None:
        """Append `items` to the list on top."""
        target = self.stack[-1]
        if type(target) is not list:
            raise Damaged(f"appends to {shown(target)}; expected a list")
        cast(list[object], target).extend(items)

    def set_items(self, pairs: list[object] | tuple[object, ...]) -> None:
        """Put keys and values, in turn, into the dict on top."""
        target = self.stack[-1]
        if type(target) is not dict:
            raise Damaged(f"sets an item of {shown(target)}; expected a dict")
        cast(dict[object, object], target).update(table(pairs))

    # globals and what is built of them

    def find(self, module: object, name: object) -> Global:
        """The stand-in for a global on the list. Raises Unsafe for any other."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged(f"names a global by {shown((module, name))}; expected text")
        if (module, name) not in GLOBALS:
            raise Unsafe(f"asks for {_plain(module)}.{_plain(name)}, which arrays never need")
        return GLOBALS[module, name]

    def reduce(self) -> object:
        """Build a stand-in of a global and its arguments."""
        function, arguments = self.pop(2)
        if not isinstance(function, Global):
            raise Damaged(f"calls {shown(function)}; expected a global")
        return function.call(items_of(arguments, "arguments"), self.budget)

    def build(self) -> None:
        """Give the stand-in on top its state."""
        target, state = self.pop(2)
        if not isinstance(target, (Array, DType)):
            raise Damaged(f"sets the state of {shown(target)}; expected an array or dtype")
        target.set_state(state)
        self.stack.append(target)

    def protocol(self) -> None:
        """Check the protocol's number."""
        number = self.number(1)
        if number > 5:
            raise Damaged(f"is written in pickle protocol {number}; expected 0 to 5")


def latin1(view: memoryview) -> str:
    """What Python 2 called a string, a character a byte."""
    return str(view, "latin-1")


def _plain(name: str) -> str:
    return ascii(name[:80])[1:-1]


def table(pairs: list[object] | tuple[object, ...]) -> dict[object, object]:
    """A dict of keys and values in turn, its keys checked before they are hashed."""
    if len(pairs) % 2:
        raise Damaged("holds a dict key without a value")
    return {_key(key): value for key, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _key(key: object) -> object:
    # no tuples: hashing nested ones can take for ever
    key = key.made() if isinstance(key, Span) else key
    if key is not None and not isinstance(key, (str, bytes, int, float)):
        raise Damaged(f"holds {shown(key)} as a dict key; expected text, bytes, a number or None")
    return key
