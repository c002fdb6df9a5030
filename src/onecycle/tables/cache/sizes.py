"""Sizes in bytes: parsing, formatting, and the default limits of memory and of the cache."""

import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from numbers import Real
from pathlib import Path

from onecycle.errors import SettingError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_ASSUMED_MEMORY = 8 * 10**9  # of a machine that reports none
_MIN_CONTAINER_MEMORY = 2**28
_MIN_CACHE_LIMIT, _DISK_FRACTION = 20 * 10**9, 0.1


def parse_size(value: object, name: str) -> int:
    """Return a number of bytes from a number, or from text such as "500 MB", "2 GB" or "1.5 GiB".

    Raises SettingError, naming the setting `name`, for anything else.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]i?)?b?\s*", value.lower())
        with suppress(ValueError):  # 1.2.3
            value = float(match[1]) * _UNITS[match[2] or ""] if match else value
    if isinstance(value, bool) or not isinstance(value, Real) or not 1 <= float(value) < 2**63:
        raise SettingError(f'{name} is {value!r}; expected a number of bytes, or a size such as "500 MB" or "2 GB"')
    return int(float(value))


def format_size(count: float) -> str:
    """Format a number of bytes with three digits: "2.1 GB", "840 MB"."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"


def parse_memory_limit(memory_limit: int | str | None) -> int:
    """Return the limit in bytes; None is half of the memory that the machine or the container has available now."""
    if memory_limit is not None:
        return parse_size(memory_limit, "memory_limit")
    known = [size for size in (_available_memory(), _available_in_container()) if size is not None]
    return (min(known) if known else _physical_memory()) // 2


def _available_memory() -> int | None:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    return None


def _available_in_container() -> int | None:
    """Return what the container may still use, by its cgroup of version 2 or 1; None without a limit."""
    cgroup = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max": no limit
            free = int((cgroup / limit).read_text()) - int((cgroup / used).read_text())
            return max(free, _MIN_CONTAINER_MEMORY)
    return None


def _physical_memory() -> int:
    with suppress(AttributeError, OSError, ValueError):
        sysconf: Callable[[str], int] = os.sysconf  # not on Windows
        return sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE")
    return _ASSUMED_MEMORY


def cache_limit(folder: Path) -> int:
    """Return the most bytes that the cache may use: ONECYCLE_CACHE_LIMIT, else the larger of 20 GB and 10% of its disk.

    Raises SettingError if the variable is not a size.
    """
    if limit := os.environ.get("ONECYCLE_CACHE_LIMIT"):
        return parse_size(limit, "ONECYCLE_CACHE_LIMIT")
    while not folder.exists():
        folder = folder.parent
    return max(_MIN_CACHE_LIMIT, int(shutil.disk_usage(folder).total * _DISK_FRACTION))
