"""What a pickle of NumPy arrays may build: slotted stand-ins that hold checked numbers and can do nothing else.

The pickle names NumPy's functions (`numpy.core.multiarray._reconstruct`, ...). None of them is ever looked up: each
name stands for one of the small functions below, which keep the arguments. An array is made at the very end, by
`made()`, once shape, type and length are known to agree.
"""

import math
from collections.abc import Callable
from typing import Literal, cast

import numpy as np

from onecycle.core.reading import Budget

MAX_DIMS = 64
_ORDINARY = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}


class Damaged(Exception):  # noqa: N818  # caught by load_pickle; what leaves it is a FileError
    """The bytes are no pickle of arrays, or not a whole one. The message completes "<path>: "."""


class Unsafe(Exception):  # noqa: N818  # caught by load_pickle; what leaves it is an UnsafeFileError
    """The pickle asks for something that could run code. The message completes "<path>: "."""


class Span:
    """A long run of bytes that stays where it lies in the file until somebody asks for it; arrays never do."""

    __slots__ = ("_budget", "_make", "_value", "view")

    def __init__(self, view: memoryview, make: Callable[[memoryview], object], budget: Budget) -> None:
        self.view, self._make, self._budget = view, make, budget
        self._value: object = None

    def made(self) -> object:
        """The text or bytes, made once."""
        if self._value is None:
            self._budget.spend(len(self.view))
            self._value = self._make(self.view)
        return self._value


class DType:
    """Stands for a numpy.dtype: a code such as "f4" and, once its state is set, a byte order."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: object) -> None:
        if isinstance(code, str) and code[:1] == "O":
            raise Unsafe("holds an array of Python objects (dtype O), which could run code when loaded")
        if not isinstance(code, str) or code not in _ORDINARY:
            raise Damaged(f"holds an array of dtype {shown(code)}; expected numbers or booleans")
        self._code, self._order = code, "="

    def __str__(self) -> str:
        return f"the dtype {self._code}"

    def set_state(self, state: object) -> None:
        """Take the byte order from what numpy.dtype saves: (3, order, None, None, None, -1, -1, 0)."""
        parts = items_of(state, "a dtype's state")
        if len(parts) != 8 or parts[0] != 3 or parts[1] not in ("<", ">", "=", "|") or parts[2:5] != (None,) * 3:
            raise Damaged(
                f"holds the dtype state {shown(state)}; expected (3, byte order, None, None, None, -1, -1, 0)"
            )
        self._order = cast(str, parts[1])

    def numpy(self) -> np.dtype[np.generic]:
        """The real dtype."""
        return np.dtype(self._order + self._code)


class Array:
    """Stands for a numpy.ndarray, or for a NumPy scalar where `scalar` is true."""

    __slots__ = ("_axes", "_budget", "_dtype", "_order", "_raw", "_scalar", "_shape", "_value")

    _order: Literal["C", "F"]

    def __init__(self, budget: Budget, scalar: bool = False) -> None:
        self._budget, self._scalar = budget, scalar
        self._raw: memoryview | None = None
        self._value: object = None

    def set_state(self, state: object) -> None:
        """Take what numpy.ndarray saves: (1, shape, dtype, Fortran order?, raw bytes)."""
        parts = items_of(state, "an array's state")
        if len(parts) != 5 or parts[0] != 1 or parts[3] not in (False, True):
            raise Damaged(
                f"holds an array state of {len(parts)} parts; expected (1, shape, dtype, Fortran order, raw bytes)"
            )
        self.set(parts[1], parts[2], "F" if parts[3] else "C", parts[4])

    def set(self, shape: object, dtype: object, order: object, raw: object, axes: object = None) -> None:
        """Check that shape, dtype and length agree; nothing is allocated before they do."""
        if self._raw is not None:
            raise Damaged("sets an array's state twice")
        if not isinstance(dtype, DType):
            raise Damaged(f"holds an array whose dtype is {shown(dtype)}; expected a numpy.dtype")
        dims = items_of(shape, "a shape")
        if len(dims) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in dims):
            raise Damaged(f"holds an array of shape {shown(shape)}; expected up to {MAX_DIMS} whole numbers >= 0")
        self._shape = cast(tuple[int, ...], dims)
        self._dtype = dtype.numpy()
        self._order, self._axes = _order(order, axes, len(dims))
        self._raw = _raw_bytes(raw, self._budget)
        needed = math.prod(self._shape) * self._dtype.itemsize  # Python integers: cannot overflow
        if needed != len(self._raw):
            raise Damaged(
                f"holds an array of shape {shown(shape)} and dtype {self._dtype.name} with {len(self._raw):,} raw "
                f"bytes; expected {shown(needed)}"
            )

    def made(self) -> object:
        """The array (or NumPy scalar), made once: writable, in this machine's byte order, in its own memory."""
        if self._value is None:
            if self._raw is None:
                raise Damaged("holds an array without content")
            self._budget.spend(len(self._raw))
            flat = np.frombuffer(self._raw, np.uint8).copy()  # a plain copy first: the file's bytes are not aligned
            self._raw = None
            # a byte other than 0 or 1 is no boolean; NumPy itself would take it over unseen
            typed = flat.astype(np.bool_) if self._dtype.kind == "b" else flat.view(self._dtype)
            native = typed.astype(self._dtype.newbyteorder("="), copy=False)
            array = native.reshape(self._shape, order=self._order)
            array = array if self._axes is None else array.transpose(self._axes)
            self._value = array[()] if self._scalar else array
        return self._value


class Global:
    """Stands for a global that the pickle may name; `call` gets (arguments, budget) and returns a stand-in."""

    __slots__ = ("_name", "call")

    def __init__(self, name: str, call: Callable[[tuple[object, ...], Budget], object]) -> None:
        self._name, self.call = name, call

    def __str__(self) -> str:
        return self._name


def _reconstruct(arguments: tuple[object, ...], budget: Budget) -> object:
    if len(arguments) != 3 or arguments[0] is not _NDARRAY:
        raise Damaged("rebuilds an array from unknown arguments; expected (numpy.ndarray, (0,), b'b')")
    return Array(budget)


def _frombuffer(arguments: tuple[object, ...], budget: Budget) -> object:
    raw, dtype, shape, order, *axes = arguments
    array = Array(budget)
    array.set(shape, dtype, order, raw, *axes)
    return array


def _scalar(arguments: tuple[object, ...], budget: Budget) -> object:
    dtype, raw = arguments
    array = Array(budget, scalar=True)
    array.set((), dtype, "C", raw)
    return array


def _dtype(arguments: tuple[object, ...], _: Budget) -> object:
    if len(arguments) != 3 or arguments[1] not in (False, True) or arguments[2] not in (False, True):
        raise Damaged(f"builds a dtype from {shown(arguments)}; expected (code, align, copy)")
    return DType(arguments[0])


def _encode(arguments: tuple[object, ...], budget: Budget) -> object:
    # how Python 3 writes bytes in protocols 0 to 2
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise Unsafe("calls _codecs.encode on something else than (text, 'latin1')")
    budget.spend(len(arguments[0]))
    return arguments[0].encode("latin1")


def _empty_bytes(arguments: tuple[object, ...], _: Budget) -> object:
    # how Python 3 writes b"" in protocols 0 to 2
    if arguments:
        raise Damaged("calls bytes with arguments; expected none")
    return b""


def _not_called(*_: object) -> object:
    raise Damaged("calls numpy.ndarray itself; expected _reconstruct")


_NDARRAY = Global("numpy.ndarray", _not_called)

# every global that may be named: what NumPy and Python write for arrays in protocols 0 to 5, and nothing else
GLOBALS: dict[tuple[str, str], Global] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Global("numpy.dtype", _dtype),
    ("_codecs", "encode"): Global("_codecs.encode", _encode),
    ("builtins", "bytes"): Global("bytes", _empty_bytes),
    ("__builtin__", "bytes"): Global("bytes", _empty_bytes),
}
for _core in ("numpy.core", "numpy._core"):  # before and after NumPy 2
    GLOBALS[_core + ".multiarray", "_reconstruct"] = Global("_reconstruct", _reconstruct)
    GLOBALS[_core + ".multiarray", "scalar"] = Global("scalar", _scalar)
    GLOBALS[_core + ".numeric", "_frombuffer"] = Global("_frombuffer", _frombuffer)


def items_of(value: object, what: str) -> tuple[object, ...]:
    """`value` itself where it is a tuple. Raises Damaged otherwise."""
    if not isinstance(value, tuple):
        raise Damaged(f"holds {shown(value)} as {what}; expected a tuple")
    return cast(tuple[object, ...], value)


def shown(value: object) -> str:
    """`value` for a message: short and printable, whatever a hostile file put there."""
    if not isinstance(value, tuple):
        return _shown_item(value)
    parts = cast(tuple[object, ...], value)
    return f"({', '.join(map(_shown_item, parts[:8]))}{', ...' if len(parts) > 8 else ''})"


def _shown_item(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a huge integer"
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    return ascii(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"


def _order(order: object, axes: object, dims: int) -> tuple[Literal["C", "F"], tuple[int, ...] | None]:
    if order == "K" and axes is not None:  # newer NumPy: a C-ordered array and how to transpose it
        turned = items_of(axes, "an axis order")
        if all(type(axis) is int for axis in turned) and set(turned) == set(range(dims)) and len(turned) == dims:
            return "C", cast(tuple[int, ...], turned)
    elif order in ("C", "F"):
        return order, None
    raise Damaged(f"holds an array of order {shown(order)}, axes {shown(axes)}; expected C, F, or K and all axes")


def _raw_bytes(raw: object, budget: Budget) -> memoryview:
    if isinstance(raw, Span):
        return raw.view
    if isinstance(raw, str):  # Python 2 bytes
        budget.spend(len(raw))
        return memoryview(raw.encode("latin1"))
    if isinstance(raw, (bytes, bytearray)):
        return memoryview(raw)
    raise Damaged(f"holds {shown(raw)} as an array's raw bytes; expected bytes")
