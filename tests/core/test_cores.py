"""The cores that the process may use, and what the system counts of threads that wait for one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onecycle.core.cores import _quota_of, usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_of_the_process_limits_the_cores():
    code = (
        "import os; core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, [core]);"
        "from onecycle.core.cores import usable_cores; print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu.cfs_quota_us": "400000\n", "cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, float("inf")),
        ({"cpu.max": "what\n"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_the_quota_of_a_control_group_is_read(tmp_path: Path, files: dict[str, str], cores: float):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert _quota_of(tmp_path) == cores


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not count it")
def test_the_system_counts_how_long_threads_wait():
    code = (
        "import os, threading; core = min(os.sched_getaffinity(0)); os.sched_setaffinity(0, [core]);"
        "from onecycle.core.cores import seconds_waited; before = seconds_waited();"
        "import time; end = time.thread_time() + 0.3;"
        "work = lambda: [None for _ in iter(lambda: time.thread_time() > end, True)];"
        "import subprocess, sys;"
        "busy = subprocess.Popen([sys.executable, '-c', 'while True: pass']); work(); busy.kill(); busy.wait();"
        "print(seconds_waited() - before)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.05 < float(result.stdout) < 30
