"""Imports are not searched for garbage, and collecting goes on afterwards."""

import gc
import subprocess
import sys

import pytest

from onecycle.core.startup import freeze_import_objects


@pytest.mark.parametrize("enabled", [True, False])
def test_collecting_is_as_it_was(enabled: bool):
    try:
        if not enabled:
            gc.disable()
        with pytest.raises(ValueError, match="x"), freeze_import_objects():
            assert not gc.isenabled()
            raise ValueError("x")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


def in_a_new_process(*lines: str) -> list[str]:
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return run.stdout.split()


LOOP = (
    "import gc, weakref",
    "class Loop: pass",
    "loop = Loop(); loop.itself = loop; gone = weakref.ref(loop)",
    "gc.collect()",  # it is old now: the small searches in between do not find it
)
AFTER = ("gc.collect(); print(gone() is None)",)


def test_garbage_from_before_the_star_import_is_let_go():
    assert in_a_new_process(*LOOP, "del loop", "from onecycle.basics import *", *AFTER) == ["True"]


def test_what_becomes_garbage_later_is_let_go_in_a_program_that_has_torch():
    assert in_a_new_process("import torch", *LOOP, "from onecycle.basics import *", "del loop", *AFTER) == ["True"]


def test_after_the_star_import_nothing_is_left_to_search():
    asked = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000, len(gc.get_objects()))"
    enabled, frozen, left = in_a_new_process("from onecycle.basics import *", asked)
    assert (enabled, frozen) == ("True", "True")
    assert int(left) < 20_000
