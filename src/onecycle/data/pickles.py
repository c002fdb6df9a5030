"""Read pickles of NumPy arrays without being able to run code.

`pickle.load` runs whatever a file asks it to. This reader unpacks the file under a cap, carries its opcodes out on a
machine that has no way to call anything, and makes arrays of the checked stand-ins that are left (pickle_arrays.py).
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
from onecycle.data.pickle_arrays import GLOBALS, Array, Damaged, Deferred, DType, Global, Unsafe, describe
from onecycle.errors import FileError, OneCycleError, UnsafeFileError

_MAX_LINE = 1000  # characters in a number or a name; keeps int("999...") from taking too long
_MAX_INTEGER = 1024  # bytes
_SHORT = 256  # bytes; up to this length text and bytes are made at once
_MAX_DEPTH = 100
_MAX_INDEX = 2**32  # of the memo, which has a place for each value
_MAX_KEY = 2**61 - 1  # whole numbers from here on can be chosen so that a dict takes the square of their number
_OPCODE_COST = 128  # bytes; no opcode makes more out of itself, apart from text and arrays, which pay for their length
_SLACK = 64 * 2**20  # small objects may take this much beyond the cap, so that the cap can be a file's exact size
# all that an ill-formed opcode may raise: for an empty stack, bad UTF-8, the wrong number of arguments
_OPCODE_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error)
_OPCODE_NAMES = {opcode.code: opcode.name for opcode in pickletools.opcodes}
_PYTHON_2_TEXT = re.compile(rb"""(?:[^\\]|\\[\\'"nrt]|\\x[0-9a-fA-F]{2})*+""", re.DOTALL)
_OTHER_FORMATS = {
    b"\x93NUMPY": "a NumPy .npy file; read it with read_npy",
    b"PK\x03\x04": "a zip archive, such as .npz; read an .npz with read_npz",
    b"\x89PNG\r\n": "a PNG image; read a folder of them with DataBunch.from_table",
    b"\x00\x00\x08": "an IDX file; read it with read_idx",
}


def load_pickle(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> object:
    """Read a pickle of NumPy arrays, gzip-compressed or not, written by Python 2 or 3 in any protocol.

    Nothing that the file names is looked up or called, so that no file can run code.

    Args:
        path: The file.
        max_bytes: Bytes that the file may unpack to, and again that the objects made of it may take. By default 2 GiB,
            but of a packed file no more than 128 MiB or 200 times its size, and for the objects 32 MiB or 8 times the
            unpacked size.

    Returns:
        The nested tuples, lists and dicts that were saved, with writable `numpy.ndarray`s of numbers or booleans in
        native byte order. Text that Python 2 wrote is read as latin-1. Dict keys are text, bytes, None or numbers,
        whole ones below 2**61 - 1.

    Raises:
        UnsafeFileError: If the file names a function or opcode that arrays do not need; nothing of it was run.
        FileError: If the file is missing, damaged, too large or not a pickle of arrays.

    Example:
        >>> (x, y), (x_valid, y_valid), _ = load_pickle(fetch("mnist") / "mnist.pkl.gz")
    """
    path = Path(path)
    content = read_unpacked(path, max_bytes)
    for magic, kind in _OTHER_FORMATS.items():
        if content.startswith(magic):
            raise FileError(f"{path}: {kind}; expected a pickle of NumPy arrays")
    machine = _Machine(content, Budget(path, effective_limit(8 * len(content), 2**25, max_bytes), _SLACK))
    try:
        return _resolve(machine.run(), {})
    except OneCycleError:
        raise
    except Unsafe as error:
        raise UnsafeFileError(
            f"{path}: {error} (byte {machine.start:,}); nothing of it was run. Expected arrays, numbers and text in "
            "tuples, lists and dicts; do not open this file with pickle.load unless you trust whoever made it"
        ) from error
    except (Damaged, *_OPCODE_ERRORS) as error:
        problem = error if isinstance(error, Damaged) else f"has an opcode that cannot be carried out ({error})"
        raise FileError(
            f"{path}: {problem} (byte {machine.start:,}); the file is damaged or not a pickle of NumPy arrays; "
            "copy or download it again, or save it anew"
        ) from error


_IN_PROGRESS = object()


def _resolve(value: object, resolved: dict[int, tuple[object, object]], depth: int = 0) -> object:
    """Return `value` with every stand-in in it replaced by what it stands for.

    `resolved` maps the id of each list, tuple and dict met so far to (itself, its final form), so that what the
    pickle shares stays shared and is walked once, however often it is mentioned.
    """
    if isinstance(value, (Deferred, Array)):
        return value.resolve()
    if isinstance(value, (DType, Global)):
        raise Damaged(f"holds {value} outside an array; expected arrays, numbers and text")
    if not isinstance(value, (dict, list, tuple)):
        return value
    container = cast(dict[object, object] | list[object] | tuple[object, ...], value)
    if (known := resolved.get(id(container))) is not None:
        if known[1] is _IN_PROGRESS:
            raise Damaged("holds a list or dict that contains itself; expected plain nested data")
        return known[1]
    if depth >= _MAX_DEPTH:
        raise Damaged(f"is nested deeper than {_MAX_DEPTH} levels; expected plain nested data")
    resolved[id(container)] = (container, _IN_PROGRESS)
    result: object = container  # lists and dicts are changed in place
    if isinstance(container, tuple):
        result = tuple([_resolve(item, resolved, depth + 1) for item in container])
    elif isinstance(container, list):
        container[:] = [_resolve(item, resolved, depth + 1) for item in container]
    else:
        for key, item in container.items():
            container[key] = _resolve(item, resolved, depth + 1)
    resolved[id(container)] = (container, result)
    return result


class _Machine:
    """One run over the opcodes of one pickle. `start` is the position of the opcode that is carried out."""

    def __init__(self, content: bytearray, budget: Budget) -> None:
        self.content, self.view, self.budget = content, memoryview(content), budget
        self.start = self.position = 0
        self.stack: list[object] = []
        self.marked: list[list[object]] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        """Carry out every opcode up to STOP and return the one value that is left, stand-ins in it.

        Raises Damaged, Unsafe, FileError over the budget, or one of Python's own errors for ill-formed opcodes.
        """
        while True:
            self.start = self.position
            self.budget.spend(_OPCODE_COST)
            code = self.take(1)[0]
            if make := _VALUES.get(code):
                value = make(self)  # first: it may change which list self.stack is
                self.stack.append(value)
            elif act := _ACTIONS.get(code):
                act(self)
            elif code == pickle.STOP[0]:
                break
            elif chr(code) in _OPCODE_NAMES:
                raise Unsafe(f"uses the opcode {_OPCODE_NAMES[chr(code)]}, which arrays never need")
            else:
                raise Damaged(f"has the byte {code:#04x} where an opcode should be")
        if self.marked or len(self.stack) != 1:
            raise Damaged("ends with more or less than one value")
        if self.position != len(self.view):
            raise Damaged(f"has {len(self.view) - self.position:,} bytes after its end")
        return self.stack.pop()

    # reading arguments

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes, not copied."""
        view = self.view[self.position : self.position + count]
        if len(view) < count:
            raise Damaged(f"is cut short: {count:,} bytes should follow, {len(view):,} do")
        self.position += count
        return view

    def integer(self, width: int, signed: bool = False) -> int:
        """Read the next little-endian integer of `width` bytes."""
        if width > _MAX_INTEGER:
            raise Damaged(f"holds an integer of {width:,} bytes; expected at most {_MAX_INTEGER:,}")
        return int.from_bytes(self.take(width), "little", signed=signed)

    def line(self, limit: int | None = _MAX_LINE) -> bytes:
        """Read the next bytes up to a line feed."""
        end = self.content.find(b"\n", self.position, None if limit is None else self.position + limit)
        if end < 0:
            raise Damaged("is cut short: a line without end")
        return bytes(self.take(end + 1 - self.position)[:-1])

    def sized(self, width: int) -> memoryview:
        """Return the next bytes, as many as the integer of `width` bytes before them says."""
        return self.take(self.integer(width))

    def run_of(self, view: memoryview, convert: Callable[[memoryview], object]) -> object:
        """Convert bytes; a long run stays in the file, because it may be an array's content."""
        return convert(view) if len(view) <= _SHORT else Deferred(view, convert, self.budget)

    def text(self, raw: memoryview | bytes, encoding: str) -> str:
        """Decode text, which may take four times the bytes."""
        self.budget.spend(4 * len(raw))
        return str(raw, encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def python_2_line(self) -> object:
        """Read a quoted, escaped line: the text of protocol 0 from Python 2."""
        quoted = self.line(limit=None)
        escaped = quoted[1:-1]
        if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
            raise Damaged("holds text without quotes")
        if not _PYTHON_2_TEXT.fullmatch(escaped):
            raise Damaged("holds text with an unknown escape")
        self.budget.spend(2 * len(escaped))
        return self.run_of(memoryview(codecs.escape_decode(escaped)[0]), _latin1)

    # the stack

    def pop(self, count: int) -> tuple[object, ...]:
        """Remove the top `count` values and return them in order."""
        if count > len(self.stack):
            raise Damaged("takes more values than there are")
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return values

    def pop_mark(self) -> list[object]:
        """Remove everything above the last mark and return it."""
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
        if not 0 <= index < _MAX_INDEX:
            raise Damaged(f"stores a value under {describe(index)}; expected a number of 32 bits")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> object:
        """Return the value stored under `index`."""
        if index not in self.memo:
            raise Damaged(f"recalls the value {describe(index)}, which it never stored")
        return self.memo[index]

    def extend(self, items: list[object] | tuple[object, ...]) -> None:
        """Append `items` to the list on top."""
        target = self.stack[-1]
        if type(target) is not list:
            raise Damaged(f"appends to {describe(target)}; expected a list")
        cast(list[object], target).extend(items)

    def set_items(self, pairs: list[object] | tuple[object, ...]) -> None:
        """Put keys and values, in turn, into the dict on top."""
        target = self.stack[-1]
        if type(target) is not dict:
            raise Damaged(f"sets an item of {describe(target)}; expected a dict")
        cast(dict[object, object], target).update(_dict_of(pairs))

    # globals, and stand-ins built with them

    def find_global(self, module: object, name: object) -> Global:
        """Return the stand-in for a global on the list. Raises Unsafe for any other."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged(f"names a global by {describe((module, name))}; expected text")
        if (module, name) not in GLOBALS:
            printable = ".".join(ascii(part[:80])[1:-1] for part in (module, name))
            raise Unsafe(f"asks for {printable}, which arrays never need")
        return GLOBALS[module, name]

    def reduce(self) -> object:
        """Build a stand-in from a global and its arguments."""
        function, arguments = self.pop(2)
        if not isinstance(function, Global):
            raise Damaged(f"calls {describe(function)}; expected a global")
        return function.call(arguments, self.budget)

    def build(self) -> None:
        """Set the state of the stand-in on top."""
        target, state = self.pop(2)
        if not isinstance(target, (Array, DType)):
            raise Damaged(f"sets the state of {describe(target)}; expected an array or dtype")
        target.set_state(state)
        self.stack.append(target)

    def protocol(self) -> None:
        """Check the number of the protocol."""
        number = self.integer(1)
        if number > 5:
            raise Damaged(f"is written in pickle protocol {number}; expected 0 to 5")


def _latin1(view: memoryview) -> str:
    """Decode a string of Python 2, a character a byte."""
    return str(view, "latin-1")


def _bool_or_int(line: bytes) -> object:
    return line == b"01" if line in (b"00", b"01") else int(line)


def _dict_of(pairs: list[object] | tuple[object, ...]) -> dict[object, object]:
    """Make a dict of keys and values in turn, its keys checked before they are hashed."""
    if len(pairs) % 2:
        raise Damaged("holds a dict key without a value")
    return {_dict_key(key): value for key, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _dict_key(key: object) -> object:
    # not a tuple: hashing nested ones can take exponential time
    key = key.resolve() if isinstance(key, Deferred) else key
    if key is not None and not isinstance(key, (str, bytes, int, float)):
        raise Damaged(f"holds {describe(key)} as a dict key; expected text, bytes, a number or None")
    if isinstance(key, int) and abs(key) >= _MAX_KEY:
        raise Damaged(f"holds {describe(key)} as a dict key; expected whole numbers below 2**61 - 1")
    return key


# opcode → the value that it pushes
_VALUES: dict[int, Callable[[_Machine], object]] = {
    pickle.NONE[0]: lambda _: None,
    pickle.NEWTRUE[0]: lambda _: True,
    pickle.NEWFALSE[0]: lambda _: False,
    pickle.INT[0]: lambda m: _bool_or_int(m.line()),
    pickle.LONG[0]: lambda m: int(m.line().removesuffix(b"L")),
    pickle.BININT[0]: lambda m: m.integer(4, signed=True),
    pickle.BININT1[0]: lambda m: m.integer(1),
    pickle.BININT2[0]: lambda m: m.integer(2),
    pickle.LONG1[0]: lambda m: m.integer(m.integer(1), signed=True),
    pickle.LONG4[0]: lambda m: m.integer(m.integer(4), signed=True),
    pickle.FLOAT[0]: lambda m: float(m.line()),
    pickle.BINFLOAT[0]: lambda m: struct.unpack(">d", m.take(8))[0],
    pickle.STRING[0]: _Machine.python_2_line,
    pickle.SHORT_BINSTRING[0]: lambda m: m.run_of(m.sized(1), _latin1),
    pickle.BINSTRING[0]: lambda m: m.run_of(m.sized(4), _latin1),
    pickle.SHORT_BINBYTES[0]: lambda m: m.run_of(m.sized(1), bytes),
    pickle.BINBYTES[0]: lambda m: m.run_of(m.sized(4), bytes),
    pickle.BINBYTES8[0]: lambda m: m.run_of(m.sized(8), bytes),
    pickle.BYTEARRAY8[0]: lambda m: m.run_of(m.sized(8), bytearray),
    pickle.UNICODE[0]: lambda m: m.text(m.line(limit=None), "raw-unicode-escape"),
    pickle.SHORT_BINUNICODE[0]: lambda m: m.text(m.sized(1), "utf-8"),
    pickle.BINUNICODE[0]: lambda m: m.text(m.sized(4), "utf-8"),
    pickle.BINUNICODE8[0]: lambda m: m.text(m.sized(8), "utf-8"),
    pickle.EMPTY_TUPLE[0]: lambda _: (),
    pickle.TUPLE1[0]: lambda m: m.pop(1),
    pickle.TUPLE2[0]: lambda m: m.pop(2),
    pickle.TUPLE3[0]: lambda m: m.pop(3),
    pickle.TUPLE[0]: lambda m: tuple(m.pop_mark()),
    pickle.EMPTY_LIST[0]: lambda _: list[object](),
    pickle.LIST[0]: _Machine.pop_mark,
    pickle.EMPTY_DICT[0]: lambda _: dict[object, object](),
    pickle.DICT[0]: lambda m: _dict_of(m.pop_mark()),
    pickle.GLOBAL[0]: lambda m: m.find_global(str(m.line(), "utf-8"), str(m.line(), "utf-8")),
    pickle.STACK_GLOBAL[0]: lambda m: m.find_global(*m.pop(2)),
    pickle.REDUCE[0]: _Machine.reduce,
    pickle.GET[0]: lambda m: m.recall(int(m.line())),
    pickle.BINGET[0]: lambda m: m.recall(m.integer(1)),
    pickle.LONG_BINGET[0]: lambda m: m.recall(m.integer(4)),
}

# opcode → its effect on the machine; the result is dropped
_ACTIONS: dict[int, Callable[[_Machine], object]] = {
    pickle.PROTO[0]: _Machine.protocol,
    pickle.FRAME[0]: lambda m: m.integer(8),
    pickle.MARK[0]: _Machine.mark,
    pickle.POP[0]: lambda m: m.pop(1) if m.stack else m.pop_mark(),
    pickle.POP_MARK[0]: _Machine.pop_mark,
    pickle.APPEND[0]: lambda m: m.extend(m.pop(1)),
    pickle.APPENDS[0]: lambda m: m.extend(m.pop_mark()),
    pickle.SETITEM[0]: lambda m: m.set_items(m.pop(2)),
    pickle.SETITEMS[0]: lambda m: m.set_items(m.pop_mark()),
    pickle.BUILD[0]: _Machine.build,
    pickle.PUT[0]: lambda m: m.remember(int(m.line())),
    pickle.BINPUT[0]: lambda m: m.remember(m.integer(1)),
    pickle.LONG_BINPUT[0]: lambda m: m.remember(m.integer(4)),
    pickle.MEMOIZE[0]: lambda m: m.remember(len(m.memo)),
}
