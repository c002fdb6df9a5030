"""Sizes: how they are written, and how much memory there is."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

from onecycle.core.errors import SettingError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_UNKNOWN = 4 * 10**9  # half of what a machine has that does not say


def parse_size(value: Any, name: str) -> int:
    """A number of bytes from a number, or from text such as "500 MB", "2 GB" or "1.5 GiB".

    Raises SettingError for anything else.
    """
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]i?)?b?\s*", value.lower())
        with suppress(ValueError):  # 1.2.3
            value = float(found[1]) * _UNITS[found[2] or ""] if found else value
    if isinstance(value, bool) or not isinstance(value, Real) or not 1 <= float(value) < 2**63:
        raise SettingError(f'{name} is {value!r}; expected a number of bytes, or a size such as "500 MB" or "2 GB"')
    return int(float(value))


def size_text(count: float) -> str:
    """A number of bytes in words: "2.1 GB", "840 MB"."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def default_memory_limit() -> int:
    """Half of the memory that is available now: of the machine, or of the container where it has less."""
    found = [read() for read in (_available, _container, _physical)]
    known = [count for count in found[:2] if count is not None] or [count for count in found[2:] if count is not None]
    return min(known) // 2 if known else _UNKNOWN


def _available() -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    return None


def _container() -> int | None:
    """What a container may still take, where Linux says so."""
    pairs = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    for most, used in pairs:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            folder = Path("/sys/fs/cgroup")
            return max(int((folder / most).read_text()) - int((folder / used).read_text()), 2**28)
    return None


def _physical() -> int | None:
    """Half of the memory of a machine that does not say how much is available."""
    with suppress(AttributeError, OSError, ValueError):
        ask: Callable[[str], int] = os.sysconf
        return ask("SC_PHYS_PAGES") * ask("SC_PAGE_SIZE")
    return None
