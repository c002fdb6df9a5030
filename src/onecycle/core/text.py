"""Functions with some of their arguments given."""

from functools import partial
from typing import Any


def pluralize(count: int, noun: str, ending: str = "s") -> str:
    """A count with its noun, such as "1 row", "2,000 rows" or, with ending "es", "3 batches"."""
    return f"{count:,} {noun}{ending if count != 1 else ''}"


def unwrap_partial(given: Any) -> Any:
    """What a partial calls; anything else is called itself."""
    return given.func if isinstance(given, partial) else given  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- of whatever
