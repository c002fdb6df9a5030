"""JsonReader: checked access to a JSON object from a file that may be damaged or malicious."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from onecycle.errors import DataError

Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=str)
_LARGEST = 1e300  # far more than what is written, and still a float


class JsonReader:
    """The members of a JSON object, each read as a type that is checked.

    Raises DataError, with the path of the member, if it is missing or of another type.
    """

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise damaged(path, value, "an object")
        self._members: dict[str, Any] = value
        self.path = path

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def get(self, key: str) -> Any:
        """Return a member of any type, or None if there is none."""
        return self._members.get(key)

    def text(self, key: str) -> str:
        """Return a text."""
        return self._value(key, str, "text")

    def choice(self, key: str, choices: Sequence[Choice]) -> Choice:
        """Return one of `choices`."""
        for choice in choices:
            if choice == self._members.get(key):
                return choice
        raise damaged(f"{self.path}.{key}", self._members.get(key), f"one of {', '.join(choices)}")

    def flag(self, key: str) -> bool:
        """Return true or false."""
        return self._value(key, bool, "true or false")

    def number(self, key: str, above: float = -_LARGEST) -> float:
        """Return a finite number."""
        return _number(self._members.get(key), f"{self.path}.{key}", above)

    def items(self, key: str) -> list[Any]:
        """Return a list of anything."""
        return self._value(key, list, "a list")

    def texts(self, key: str) -> list[str]:
        """Return a list of different texts."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values) or len(set(values)) < len(values):
            raise damaged(f"{self.path}.{key}", values, "different texts")
        return values

    def numbers(self, key: str, above: float = -_LARGEST) -> list[float]:
        """Return a list of finite numbers."""
        return [_number(value, f"{self.path}.{key}[{i}]", above) for i, value in enumerate(self.items(key))]

    def child(self, key: str) -> "JsonReader":
        """Return an object."""
        return JsonReader(self._members.get(key), f"{self.path}.{key}")

    def check_format(self, version: int) -> None:
        """Raise DataError unless the object says that it is of this format."""
        if (value := self._members.get("format")) != version or isinstance(value, bool):
            raise damaged(f"{self.path}.format", value, f"{version}, what this version of onecycle writes")

    def _value(self, key: str, kind: type[Value], expected: str) -> Value:
        if not isinstance(value := self._members.get(key), kind):
            raise damaged(f"{self.path}.{key}", value, expected)
        return value


def damaged(path: str, value: Any, expected: str) -> DataError:
    """Return the error for a part of a description that `to_dict` did not write."""
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return DataError(f"{path} is {shown}; expected {expected}; take an undamaged copy, or train and save again")


def _number(value: Any, path: str, above: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < _LARGEST:
        raise damaged(path, value, "a finite number" if above == -_LARGEST else f"a finite number above {above:g}")
    return float(value)
