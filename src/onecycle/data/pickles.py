"""Reads pickles of NumPy arrays without being able to run code.

`pickle.load` runs whatever a file asks it to. This reader unpacks the file under a cap, carries its opcodes
(pickle_opcodes.py) out on a machine that has no way to call anything (pickle_machine.py), and makes arrays of the
checked stand-ins that the machine leaves (pickle_arrays.py).
"""

import codecs
import os
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

from onecycle.core.reading import MAX_BYTES, Budget, effective_limit, read_unpacked
from onecycle.data.pickle_arrays import GLOBALS, Array, Damaged, DType, Global, Span, Unsafe, items_of, shown
from onecycle.errors import FileError, OneCycleError, UnsafeFileError

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


_OPCODE_COST = 128  # bytes; no opcode makes more out of itself, apart from text and arrays, which pay for their length
_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}


def run(machine: Machine) -> object:
    """Carry out every opcode up to STOP and return what is left on the stack, stand-ins in it.

    Raises Damaged, Unsafe, FileError over the budget, or one of Python's own errors for ill-formed opcodes.
    """
    while True:
        machine.start = machine.position
        machine.budget.spend(_OPCODE_COST)
        code = machine.take(1)[0]
        if make := _MAKES.get(code):
            made = make(machine)  # first: it may change which list machine.stack is
            machine.stack.append(made)
        elif act := _ACTS.get(code):
            act(machine)
        elif code == pickle.STOP[0]:
            return machine.result()
        elif chr(code) in _NAMES:
            raise Unsafe(f"uses the opcode {_NAMES[chr(code)]}, which arrays never need")
        else:
            raise Damaged(f"has the byte {code:#04x} where an opcode should be")


def _bool_or_int(machine: Machine) -> object:
    line = machine.line()
    return line == b"01" if line in (b"00", b"01") else int(line)


# opcode → what it pushes
_MAKES: dict[int, Callable[[Machine], object]] = {
    pickle.NONE[0]: lambda _: None,
    pickle.NEWTRUE[0]: lambda _: True,
    pickle.NEWFALSE[0]: lambda _: False,
    pickle.INT[0]: _bool_or_int,
    pickle.LONG[0]: lambda m: int(m.line().removesuffix(b"L")),
    pickle.BININT[0]: lambda m: m.number(4, signed=True),
    pickle.BININT1[0]: lambda m: m.number(1),
    pickle.BININT2[0]: lambda m: m.number(2),
    pickle.LONG1[0]: lambda m: m.number(m.number(1), signed=True),
    pickle.LONG4[0]: lambda m: m.number(m.number(4), signed=True),
    pickle.FLOAT[0]: lambda m: float(m.line()),
    pickle.BINFLOAT[0]: lambda m: struct.unpack(">d", m.take(8))[0],
    pickle.STRING[0]: Machine.python_2_line,
    pickle.SHORT_BINSTRING[0]: lambda m: m.run_of(m.take(m.number(1)), latin1),
    pickle.BINSTRING[0]: lambda m: m.run_of(m.take(m.number(4)), latin1),
    pickle.SHORT_BINBYTES[0]: lambda m: m.run_of(m.take(m.number(1)), bytes),
    pickle.BINBYTES[0]: lambda m: m.run_of(m.take(m.number(4)), bytes),
    pickle.BINBYTES8[0]: lambda m: m.run_of(m.take(m.number(8)), bytes),
    pickle.BYTEARRAY8[0]: lambda m: m.run_of(m.take(m.number(8)), bytearray),
    pickle.UNICODE[0]: lambda m: m.text(m.line(limit=None), "raw-unicode-escape"),
    pickle.SHORT_BINUNICODE[0]: lambda m: m.text(m.take(m.number(1)), "utf-8"),
    pickle.BINUNICODE[0]: lambda m: m.text(m.take(m.number(4)), "utf-8"),
    pickle.BINUNICODE8[0]: lambda m: m.text(m.take(m.number(8)), "utf-8"),
    pickle.EMPTY_TUPLE[0]: lambda _: (),
    pickle.TUPLE1[0]: lambda m: m.pop(1),
    pickle.TUPLE2[0]: lambda m: m.pop(2),
    pickle.TUPLE3[0]: lambda m: m.pop(3),
    pickle.TUPLE[0]: lambda m: tuple(m.pop_mark()),
    pickle.EMPTY_LIST[0]: lambda _: list[object](),
    pickle.LIST[0]: Machine.pop_mark,
    pickle.EMPTY_DICT[0]: lambda _: dict[object, object](),
    pickle.DICT[0]: lambda m: table(m.pop_mark()),
    pickle.GLOBAL[0]: lambda m: m.find(str(m.line(), "utf-8"), str(m.line(), "utf-8")),
    pickle.STACK_GLOBAL[0]: lambda m: m.find(*m.pop(2)),
    pickle.REDUCE[0]: Machine.reduce,
    pickle.GET[0]: lambda m: m.recall(int(m.line())),
    pickle.BINGET[0]: lambda m: m.recall(m.number(1)),
    pickle.LONG_BINGET[0]: lambda m: m.recall(m.number(4)),
}

# opcode → what it does to the machine
_ACTS: dict[int, Callable[[Machine], None]] = {
    pickle.PROTO[0]: Machine.protocol,
    pickle.FRAME[0]: lambda m: _none(m.number(8)),
    pickle.MARK[0]: Machine.mark,
    pickle.POP[0]: lambda m: _none(m.pop(1) if m.stack else m.pop_mark()),
    pickle.POP_MARK[0]: lambda m: _none(m.pop_mark()),
    pickle.APPEND[0]: lambda m: m.extend(m.pop(1)),
    pickle.APPENDS[0]: lambda m: m.extend(m.pop_mark()),
    pickle.SETITEM[0]: lambda m: m.set_items(m.pop(2)),
    pickle.SETITEMS[0]: lambda m: m.set_items(m.pop_mark()),
    pickle.BUILD[0]: Machine.build,
    pickle.PUT[0]: lambda m: m.remember(int(m.line())),
    pickle.BINPUT[0]: lambda m: m.remember(m.number(1)),
    pickle.LONG_BINPUT[0]: lambda m: m.remember(m.number(4)),
    pickle.MEMOIZE[0]: lambda m: m.remember(len(m.memo)),
}


def _none(_: object) -> None:
    """Drops a value: an action returns nothing."""


MAX_DEPTH = 100
_SLACK = 64 * 2**20  # small objects may take this much beyond the cap, so that the cap can be a file's exact size
_OTHER_KINDS = {
    b"\x93NUMPY": "a NumPy .npy file; read it with read_npy",
    b"PK\x03\x04": "a zip archive, such as .npz; read an .npz with read_npz",
    b"\x89PNG\r\n": "a PNG image; read it with read_png",
    b"\x00\x00\x08": "an IDX file; read it with read_idx",
}


def load_pickle(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> object:
    """Read a pickle of NumPy arrays, gzip-compressed or not, written by Python 2 or 3 in any protocol.

    Returns the nested tuples, lists and dicts that were saved, with writable `numpy.ndarray`s of numbers or booleans
    in this machine's byte order. Text that Python 2 wrote is read as latin-1. Dict keys must be text, bytes, numbers
    or None.

    The file may unpack to `max_bytes` (2 GiB; a packed file to 128 MiB or 200 times its size, unless another number is
    given), and what is made of it may take as much again (by default 32 MiB or 8 times what was unpacked).

    Raises UnsafeFileError when the file names a function or opcode that arrays do not need: nothing of it has run.
    Raises FileError when the file is missing, damaged, too large or no pickle of arrays.
    """
    path = Path(path)
    content = read_unpacked(path, max_bytes)
    for magic, kind in _OTHER_KINDS.items():
        if content.startswith(magic):
            raise FileError(f"{path}: {kind}; expected a pickle of NumPy arrays")
    machine = Machine(content, Budget(path, effective_limit(8 * len(content), 2**25, max_bytes), _SLACK))
    try:
        return _finish(run(machine), {})
    except OneCycleError:
        raise
    except Unsafe as error:
        raise UnsafeFileError(
            f"{path}: {error} (byte {machine.start:,}); nothing of it was run. Expected arrays, numbers and text in "
            "tuples, lists and dicts; do not open this file with pickle.load unless you trust whoever made it"
        ) from error
    except Damaged as error:
        raise _damaged(path, str(error), machine.start) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error) as error:
        # whatever else an ill-formed opcode runs into: an empty stack, bad UTF-8, the wrong number of arguments
        raise _damaged(path, f"has an opcode that cannot be carried out ({error})", machine.start) from error


def _damaged(path: Path, what: str, position: int) -> FileError:
    return FileError(
        f"{path}: {what} (byte {position:,}); the file is damaged or no pickle of NumPy arrays; "
        "copy or download it again, or save it anew"
    )


def _finish(value: object, done: dict[int, tuple[object, object]], depth: int = 0) -> object:
    """`value` with every stand-in in it made into what it stands for.

    `done` maps the id of each list, tuple and dict met so far to (itself, its finished form), so that what the
    pickle shares stays shared and is walked once, however often it is mentioned.
    """
    if isinstance(value, (Span, Array)):
        return value.made()
    if isinstance(value, (DType, Global)):
        raise Damaged(f"holds {value} outside an array; expected arrays, numbers and text")
    if not isinstance(value, (dict, list, tuple)):
        return value
    whole = cast(dict[object, object] | list[object] | tuple[object, ...], value)
    known = done.get(id(whole))
    if known is not None:
        if known[1] is _UNFINISHED:
            raise Damaged("holds a list or dict that contains itself; expected plain nested data")
        return known[1]
    if depth >= MAX_DEPTH:
        raise Damaged(f"is nested deeper than {MAX_DEPTH} levels; expected plain nested data")
    done[id(whole)] = (whole, _UNFINISHED)
    result: object = whole  # lists and dicts are filled where they are
    if isinstance(whole, dict):
        for key, item in whole.items():
            whole[key] = _finish(item, done, depth + 1)
    elif isinstance(whole, list):
        for index, item in enumerate(whole):
            whole[index] = _finish(item, done, depth + 1)
    else:
        result = tuple([_finish(item, done, depth + 1) for item in whole])
    done[id(whole)] = (whole, result)
    return result


_UNFINISHED = object()
