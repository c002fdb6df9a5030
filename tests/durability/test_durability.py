"""Short versions of the torture: `make torture` runs the long ones, whose figures are in docs/reliability.md."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
]
HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "args",
    [
        ("kills.py", "--kills", "12"),
        ("flips.py", "--flips", "600"),
        ("faults.py",),
        ("signals.py", "--times", "2", "--epochs", "100"),
        ("fits.py", "--fits", "90"),
        ("every_type.py", "--every", "83"),
        ("resumes.py", "--stops", "1"),
        ("malice.py", "--every", "40", "--seconds", "30"),
        ("odd_files.py", "--every", "30"),
        ("early_kills.py", "--kills", "4"),
        ("json_kinds.py", "--every", "53"),
    ],
    ids=lambda args: args[0],
)
def test_nothing_is_lost(args: tuple[str, ...]):
    words = [sys.executable, "-W", "error", HERE / args[0], *args[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
