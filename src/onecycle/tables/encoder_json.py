"""Fitted columns as JSON and back. What is read comes from a file, so the type of each part is checked."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeAlias

from onecycle.errors import DataError
from onecycle.tables.categories import FittedCategory
from onecycle.tables.dates import PARTS, FittedDate
from onecycle.tables.numbers import FittedNumber

_MOST = 1e300  # far more than what is written, and still a float
FORMS = ("text", "number", "bool")
Encoder: TypeAlias = FittedNumber | FittedDate | FittedCategory


class JsonReader:
    """An object that was read from JSON, whose members are asked for by name and type.

    Raises DataError, saying where, for a member that is not there or of another type.
    """

    def __init__(self, found: Any, where: str) -> None:
        if not isinstance(found, dict):
            raise damaged(where, found, "an object")
        self._found: dict[str, Any] = found
        self.where = where

    def text(self, key: str, among: tuple[str, ...] | None = None) -> str:
        """A text; `among` says which ones there are."""
        found = self._found.get(key)
        if not isinstance(found, str) or (among is not None and found not in among):
            raise damaged(f"{self.where}.{key}", found, "a text" if among is None else f"one of {', '.join(among)}")
        return found

    def flag(self, key: str) -> bool:
        """True or false."""
        if not isinstance(found := self._found.get(key), bool):
            raise damaged(f"{self.where}.{key}", found, "true or false")
        return found

    def number(self, key: str, above: float = -_MOST) -> float:
        """A finite number."""
        return _number(self._found.get(key), f"{self.where}.{key}", above)

    def items(self, key: str) -> list[Any]:
        """A list of anything."""
        if not isinstance(found := self._found.get(key), list):
            raise damaged(f"{self.where}.{key}", found, "a list")
        return found

    def texts(self, key: str) -> list[str]:
        """A list of different texts."""
        found = self.items(key)
        if not all(isinstance(value, str) for value in found) or len(set(found)) < len(found):
            raise damaged(f"{self.where}.{key}", found, "different texts")
        return found

    def numbers(self, key: str, above: float = -_MOST) -> list[float]:
        """A list of finite numbers."""
        return [_number(value, f"{self.where}.{key}[{at}]", above) for at, value in enumerate(self.items(key))]

    def members(self, key: str) -> "dict[str, Any]":
        """An object's members."""
        return JsonReader(self._found.get(key), f"{self.where}.{key}")._found

    def format(self, version: int) -> None:
        """Raises DataError unless the object says that it is of this format."""
        if (found := self._found.get("format")) != version or isinstance(found, bool):
            raise damaged(f"{self.where}.format", found, f"{version}, what this version of onecycle writes")


def damaged(where: str, found: Any, expected: str) -> DataError:
    """The error for a part of a description that `to_dict` did not write."""
    shown = repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return DataError(f"{where} is {shown}; expected {expected}; take an undamaged copy, or train and save again")


def encoder_to_dict(column: Encoder) -> dict[str, Any]:
    """One fitted column as plain JSON."""
    written = asdict(column)
    if isinstance(column, FittedNumber):
        return {"kind": "number", **written}
    if isinstance(column, FittedDate):
        return {"kind": "date", **written, "parts": {part: list(found) for part, found in column.parts.items()}}
    return {"kind": "category", **written, "values": list(column.values)}


def encoder_from_dict(found: Any, where: str) -> Encoder:
    """The fitted column that `fitted_to` wrote. Raises DataError, saying where, for anything else."""
    written = JsonReader(found, where)
    kind = written.text("kind", ("number", "date", "category"))
    name, flag = written.text("name"), written.flag("flag")
    if kind == "number":
        numbers = written.number("mean"), written.number("std", above=0), written.number("fill")
        return FittedNumber(name, *numbers, flag)
    if kind == "category":
        return FittedCategory(name, written.text("form", FORMS), tuple(written.texts("values")), flag)
    parts = JsonReader(written.members("parts"), f"{where}.parts")
    moments = {part: parts.numbers(part) for part in written.members("parts")}
    for part, found_numbers in moments.items():
        if part not in PARTS or len(found_numbers) != 2 or found_numbers[1] <= 0:
            raise damaged(f"{where}.parts.{part}", found_numbers, "mean and std of a part of dates")
    fill = written.text("fill")
    try:
        datetime.fromisoformat(fill)
    except ValueError:
        raise damaged(f"{where}.fill", fill, "an ISO date") from None
    return FittedDate(
        name, fill, {part: (mean, std) for part, (mean, std) in moments.items()}, flag, written.flag("lenient")
    )


def _number(found: Any, where: str, above: float) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not above < found < _MOST:
        raise damaged(where, found, "a finite number" if above == -_MOST else f"a finite number above {above:g}")
    return float(found)
