"""Check and normalize arguments, with one wording for what is wrong with a number."""

import reprlib
from functools import partial
from numbers import Integral, Real
from typing import Any

from onecycle.errors import SettingError


def check_int(value: Any, name: str, least: int) -> int:
    """Return `value` as an int of at least `least`; NumPy integers are accepted. Raises SettingError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise SettingError(f"{name} is {reprlib.repr(value)}; expected a whole number of at least {least}")
    return int(value)


def check_positive(value: Any, name: str, hint: str = "") -> float:
    """Return `value` as a float above 0; NumPy and torch scalars are accepted. Raises SettingError otherwise."""
    number = getattr(value, "item", lambda: value)() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 < float(number) < float("inf"):
        raise SettingError(f"{name} is {reprlib.repr(value)}; expected a finite number above 0{hint}")
    return float(number)


def check_fraction(value: Any, name: str, of: str) -> float:
    """Return `value` as a float from 0 to 1. Raises SettingError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise SettingError(f"{name} is {reprlib.repr(value)}; expected {of}, from 0 to 1")
    return float(value)


def as_list(value: Any) -> list[Any]:
    """Return a list or tuple as a list, None as an empty list, and anything else as a list of one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- of whatever


def unwrap_partial(function: Any) -> Any:
    """Return the function that a partial calls, or `function` itself if it is not a partial."""
    return function.func if isinstance(function, partial) else function  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- of whatever
