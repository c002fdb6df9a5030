"""Functions with some of their arguments given."""

from functools import partial
from typing import Any


def called(given: Any) -> Any:
    """What a partial calls; anything else is called itself."""
    return given.func if isinstance(given, partial) else given  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- of whatever
