"""Imports are not searched for garbage, and collecting goes on afterwards."""

import gc
import subprocess
import sys

import pytest

from onecycle.core.process import freeze_import_objects


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


@pytest.mark.slow
def test_garbage_from_before_the_star_import_is_let_go():
    assert in_a_new_process(*LOOP, "del loop", "from onecycle.basics import *", *AFTER) == ["True"]


@pytest.mark.slow
def test_what_becomes_garbage_later_is_let_go_in_a_program_that_has_torch():
    assert in_a_new_process("import torch", *LOOP, "from onecycle.basics import *", "del loop", *AFTER) == ["True"]


@pytest.mark.slow
def test_after_the_star_import_nothing_is_left_to_search():
    asked = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000, len(gc.get_objects()))"
    enabled, frozen, left = in_a_new_process("from onecycle.basics import *", asked)
    assert (enabled, frozen) == ("True", "True")
    assert int(left) < 20_000


@pytest.mark.slow
def test_threads_leave_torchs_methods_as_they_were():
    done = in_a_new_process(
        "import sys, threading, time, torch",
        "from torch.optim import Optimizer",
        "from onecycle.core.process import without_compiler",
        "before = dict(vars(Optimizer))",
        "inside = []",
        "def work():",
        "    for _ in range(20):",
        "        with without_compiler():",
        "            inside.append(hasattr(Optimizer.state_dict, '__wrapped__')); time.sleep(1e-4)",
        "threads = [threading.Thread(target=work) for _ in range(8)]",
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]",
        "print(len(inside), any(inside), dict(vars(Optimizer)) == before, 'torch._dynamo' in sys.modules)",
    )
    assert done == ["160", "False", "True", "False"]


@pytest.mark.slow
def test_one_variable_turns_every_change_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONECYCLE_TUNE_PROCESS", "0")
    done = in_a_new_process(
        "from onecycle.basics import *",
        "import gc; from unittest import mock; from torch.optim import Optimizer",
        "from onecycle.core.process import raise_malloc_trim_threshold, without_compiler",
        "with without_compiler(): print(hasattr(Optimizer.state_dict, '__wrapped__'))",
        "with mock.patch.object(torch, 'empty') as empty: raise_malloc_trim_threshold(); print(empty.called)",
        "print(gc.get_freeze_count(), gc.isenabled())",
    )
    assert done == ["True", "False", "0", "True"]
