"""Numbers that a caller gives, checked with one wording."""

import reprlib
from numbers import Integral, Real
from typing import Any

from onecycle.core.errors import SettingError


def whole(value: Any, name: str, least: int) -> int:
    """`value` as an int of at least `least` (NumPy's integers too). Raises SettingError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise SettingError(f"{name} is {reprlib.repr(value)}; expected a whole number of at least {least}")
    return int(value)


def positive(value: Any, name: str, hint: str = "") -> float:
    """`value` as a float above 0 (NumPy's and torch's scalars too). Raises SettingError otherwise."""
    number = getattr(value, "item", lambda: value)() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 < float(number) < float("inf"):
        raise SettingError(f"{name} is {reprlib.repr(value)}; expected a finite number above 0{hint}")
    return float(number)


def share(value: Any, name: str, of: str) -> float:
    """`value` as a float from 0 to 1. Raises SettingError otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise SettingError(f"{name} is {reprlib.repr(value)}; expected {of}, from 0 to 1")
    return float(value)
