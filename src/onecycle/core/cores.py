"""The cores that the process may use, and how long its threads wait for one."""

import os
from contextlib import suppress
from pathlib import Path


def usable_cores() -> int:
    """Return how many cores the process may use, by its affinity and by the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _quota())))


def _quota() -> float:
    """Return how many cores the control groups of the process (of Linux, version 1 or 2) let it use."""
    found = [float("inf")]
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = Path("/sys/fs/cgroup" + ("" if not controllers else "/cpu"))
            if not controllers or "cpu" in controllers.split(","):
                group = root / path.lstrip("/")
                found += [_quota_of(folder) for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return min(found)


def _quota_of(folder: Path) -> float:
    with suppress(OSError, ValueError):
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            return int(quota) / int(period)
    return float("inf")


def seconds_waited() -> float:
    """Return how long the threads of the process were ready to run and had no core; 0 where that is not known."""
    waited = 0
    with suppress(OSError, ValueError, IndexError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has ended
                waited += int((task / "schedstat").read_text().split()[1])
    return waited / 1e9
