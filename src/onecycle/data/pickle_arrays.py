"""Stand-ins for what a pickle of NumPy arrays may build: they hold checked numbers and can do nothing else.

The pickle names NumPy's functions (`numpy.core.multiarray._reconstruct`, ...). None of them is ever looked up: each
name stands for one of the small functions below, which store the arguments. An array is made at the very end, by
`resolve()`, once shape, type and length are known to agree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from onecycle.core.reading import Budget

MAX_DIMS = 64
_TYPE_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"}


class Damaged(Exception):  # noqa: N818  # caught by load_pickle, which raises a FileError
    """The bytes are not a pickle of arrays, or not a whole one. The message completes "<path>: "."""


class Unsafe(Exception):  # noqa: N818  # caught by load_pickle, which raises an UnsafeFileError
    """The pickle asks for something that could run code. The message completes "<path>: "."""


@dataclass(slots=True, eq=False)
class Deferred:
    """Long text or bytes that stay in the file's content until needed; as an array's content they never are."""

    view: memoryview
    convert: Callable[[memoryview], object]
    budget: Budget
    _value: object = None

    def resolve(self) -> object:
        """Return the text or bytes, made once."""
        if self._value is None:
            self.budget.spend(len(self.view))
            self._value = self.convert(self.view)
        return self._value


class DType:
    """Stands for a numpy.dtype: a code such as "f4" and, once its state is set, a byte order."""

    __slots__ = ("_byte_order", "_code")

    def __init__(self, code: object) -> None:
        if isinstance(code, str) and code[:1] == "O":
            raise Unsafe("holds an array of Python objects (dtype O), which could run code when loaded")
        if not isinstance(code, str) or code not in _TYPE_CODES:
            raise Damaged(f"holds an array of dtype {describe(code)}; expected numbers or booleans")
        self._code, self._byte_order = code, "="

    def __str__(self) -> str:
        return f"the dtype {self._code}"

    def set_state(self, state: object) -> None:
        """Take the byte order from the state that numpy.dtype saves: (3, order, None, None, None, -1, -1, 0)."""
        items = as_tuple(state, "a dtype's state")
        if len(items) != 8 or items[0] != 3 or items[1] not in ("<", ">", "=", "|") or items[2:5] != (None,) * 3:
            raise Damaged(
                f"holds the dtype state {describe(state)}; expected (3, byte order, None, None, None, -1, -1, 0)"
            )
        self._byte_order = cast(str, items[1])

    def numpy(self) -> np.dtype[np.generic]:
        """Return the real dtype."""
        return np.dtype(self._byte_order + self._code)


class Array:
    """Stands for a numpy.ndarray, or for a NumPy scalar."""

    __slots__ = ("_axes", "_budget", "_dtype", "_is_scalar", "_order", "_raw", "_shape", "_value")

    _order: Literal["C", "F"]

    def __init__(self, budget: Budget, is_scalar: bool = False) -> None:
        self._budget, self._is_scalar = budget, is_scalar
        self._raw: memoryview | None = None
        self._value: object = None

    def set_state(self, state: object) -> None:
        """Take the state that numpy.ndarray saves: (1, shape, dtype, Fortran order?, raw bytes)."""
        items = as_tuple(state, "an array's state")
        if len(items) != 5 or items[0] != 1 or items[3] not in (False, True):
            raise Damaged(
                f"holds an array state of {len(items)} parts; expected (1, shape, dtype, Fortran order, raw bytes)"
            )
        self.set_content(items[1], items[2], "F" if items[3] else "C", items[4])

    def set_content(self, shape: object, dtype: object, order: object, raw: object, axes: object = None) -> None:
        """Check that shape, dtype and length agree; nothing is allocated before they do."""
        if self._raw is not None:
            raise Damaged("sets an array's state twice")
        if not isinstance(dtype, DType):
            raise Damaged(f"holds an array whose dtype is {describe(dtype)}; expected a numpy.dtype")
        dims = as_tuple(shape, "a shape")
        if len(dims) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in dims):
            raise Damaged(f"holds an array of shape {describe(shape)}; expected up to {MAX_DIMS} whole numbers >= 0")
        self._shape = cast(tuple[int, ...], dims)
        self._dtype = dtype.numpy()
        self._order, self._axes = _memory_order(order, axes, len(dims))
        self._raw = _raw_bytes(raw, self._budget)
        needed = math.prod(self._shape) * self._dtype.itemsize  # Python integers: cannot overflow
        if needed != len(self._raw):
            raise Damaged(
                f"holds an array of shape {describe(shape)} and dtype {self._dtype.name} with {len(self._raw):,} raw "
                f"bytes; expected {describe(needed)}"
            )

    def resolve(self) -> object:
        """Return the array (or NumPy scalar), made once: writable, in native byte order, in its own memory."""
        if self._value is None:
            if self._raw is None:
                raise Damaged("holds an array without content")
            self._budget.spend(len(self._raw))
            flat = np.frombuffer(self._raw, np.uint8).copy()  # a plain copy first: the file's bytes are not aligned
            self._raw = None
            # a byte other than 0 or 1 is not a boolean; NumPy itself would take it over unseen
            typed = flat.astype(np.bool_) if self._dtype.kind == "b" else flat.view(self._dtype)
            native = typed.astype(self._dtype.newbyteorder("="), copy=False)
            array = native.reshape(self._shape, order=self._order)
            array = array if self._axes is None else array.transpose(self._axes)
            self._value = array[()] if self._is_scalar else array
        return self._value


def _memory_order(order: object, axes: object, dims: int) -> tuple[Literal["C", "F"], tuple[int, ...] | None]:
    if order == "K" and axes is not None:  # newer NumPy: a C-ordered array and how to transpose it
        permutation = cast(tuple[int, ...], as_tuple(axes, "an axis order"))
        if all(type(axis) is int for axis in permutation) and sorted(permutation) == [*range(dims)]:
            return "C", permutation
    elif order in ("C", "F"):
        return order, None
    raise Damaged(f"holds an array of order {describe(order)}, axes {describe(axes)}; expected C, F, or K and all axes")


def _raw_bytes(raw: object, budget: Budget) -> memoryview:
    if isinstance(raw, Deferred):
        return raw.view
    if isinstance(raw, str):  # Python 2 bytes
        budget.spend(len(raw))
        return memoryview(raw.encode("latin1"))
    if isinstance(raw, (bytes, bytearray)):
        return memoryview(raw)
    raise Damaged(f"holds {describe(raw)} as an array's raw bytes; expected bytes")


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """Stands for a global that the pickle may name; `build` takes (arguments, budget) and returns a stand-in."""

    name: str
    build: Callable[[tuple[object, ...], Budget], object]

    def __str__(self) -> str:
        return self.name

    def call(self, arguments: object, budget: Budget) -> object:
        """Build a stand-in from the arguments of a call."""
        return self.build(as_tuple(arguments, "arguments"), budget)


def _ndarray(*_: object) -> object:
    raise Damaged("calls numpy.ndarray itself; expected _reconstruct")


_NDARRAY = Global("numpy.ndarray", _ndarray)


def _reconstruct(arguments: tuple[object, ...], budget: Budget) -> object:
    if len(arguments) != 3 or arguments[0] is not _NDARRAY:
        raise Damaged("rebuilds an array from unknown arguments; expected (numpy.ndarray, (0,), b'b')")
    return Array(budget)


def _frombuffer(arguments: tuple[object, ...], budget: Budget) -> object:
    raw, dtype, shape, order, *axes = arguments
    array = Array(budget)
    array.set_content(shape, dtype, order, raw, *axes)
    return array


def _scalar(arguments: tuple[object, ...], budget: Budget) -> object:
    dtype, raw = arguments
    array = Array(budget, is_scalar=True)
    array.set_content((), dtype, "C", raw)
    return array


def _dtype(arguments: tuple[object, ...], _: Budget) -> object:
    if len(arguments) != 3 or arguments[1] not in (False, True) or arguments[2] not in (False, True):
        raise Damaged(f"builds a dtype from {describe(arguments)}; expected (code, align, copy)")
    return DType(arguments[0])


def _encode(arguments: tuple[object, ...], budget: Budget) -> object:
    # Python 3 writes bytes like this in protocols 0 to 2
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise Unsafe("calls _codecs.encode on something else than (text, 'latin1')")
    budget.spend(len(arguments[0]))
    return arguments[0].encode("latin1")


def _empty_bytes(arguments: tuple[object, ...], _: Budget) -> object:
    # Python 3 writes b"" like this in protocols 0 to 2
    if arguments:
        raise Damaged("calls bytes with arguments; expected none")
    return b""


# every global that may be named: those that NumPy and Python write for arrays in protocols 0 to 5, and nothing else
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


def as_tuple(value: object, what: str) -> tuple[object, ...]:
    """Return `value` itself. Raises Damaged if it is not a tuple."""
    if not isinstance(value, tuple):
        raise Damaged(f"holds {describe(value)} as {what}; expected a tuple")
    return cast(tuple[object, ...], value)


def describe(value: object) -> str:
    """Return `value` for a message: short and printable, whatever a hostile file put there."""
    if not isinstance(value, tuple):
        return _describe_item(value)
    items = cast(tuple[object, ...], value)
    return f"({', '.join(map(_describe_item, items[:8]))}{', ...' if len(items) > 8 else ''})"


def _describe_item(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a huge integer"
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    return ascii(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
