"""Imports are not searched for garbage, and collecting goes on afterwards."""

import gc
import subprocess
import sys

import pytest

from onecycle.core.startup import lasting


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_is_as_it_was(enabled: bool):
    try:
        if not enabled:
            gc.disable()
        with pytest.raises(ValueError, match="x"), lasting():
            assert not gc.isenabled()
            raise ValueError("x")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_after_the_star_import_nothing_is_left_to_search():
    code = "from onecycle.basics import *; import gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000, len(gc.get_objects()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    enabled, frozen, left = run.stdout.split()
    assert (enabled, frozen) == ("True", "True")
    assert int(left) < 20_000
