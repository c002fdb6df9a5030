"""How often a fit is kept, from what people write: "1 epoch", "30 s", 500."""

import re
from dataclasses import dataclass
from typing import Any

from onecycle.core.checks import whole
from onecycle.core.errors import SettingError

_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_COUNTED = ("epoch", "batch", "step")
_UNITS = (*_SECONDS, *_COUNTED)
_EXPECTED = 'expected a number of batches, or text such as "1 epoch", "500 batches", "30 s" or "10 min"'


@dataclass(frozen=True)
class Every:
    """So many epochs, batches or seconds; two of them are None."""

    epochs: int | None = None
    batches: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, given: Any) -> "Every":
        """What `given` says. Raises SettingError for anything else."""
        if not isinstance(given, str):
            return cls(batches=whole(given, "every", least=1))
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", given.lower())
        count, word = (float(found[1]), found[2] or "batch") if found else (0.0, "")
        unit = next((w for w in (word, word.removesuffix("s"), word.removesuffix("es")) if w in _UNITS), "")
        if count > 0 and unit in _SECONDS:
            return cls(seconds=count * _SECONDS[unit])
        if count >= 1 and count == int(count) and unit in _COUNTED:
            return cls(epochs=int(count)) if unit == "epoch" else cls(batches=int(count))
        raise SettingError(f"every is {given!r}; {_EXPECTED}")
