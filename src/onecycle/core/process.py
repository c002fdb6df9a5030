"""The settings of the process that the library touches for speed.

Each is measured in docs/engine.md. `ONECYCLE_TUNE_PROCESS=0` turns all of them off.
"""

import gc
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from threading import RLock

_SWAP_LOCK = RLock()


def may_tune() -> bool:
    """Whether the environment allows changes to the process: `ONECYCLE_TUNE_PROCESS` is not 0."""
    return os.environ.get("ONECYCLE_TUNE_PROCESS", "1") != "0"


@contextmanager
def freeze_import_objects() -> Generator[None]:
    """Exempt what is imported in the block from garbage collection (`gc.freeze`), if torch was not imported before.

    torch alone creates hundreds of thousands of objects that live as long as the process, and searching them for
    garbage takes time. Garbage from before the block is collected first. A program that has imported
    torch already may have objects of its own that become garbage: nothing is frozen then.
    """
    if not may_tune():
        yield
        return
    was_enabled, is_first = gc.isenabled(), "torch" not in sys.modules
    if is_first:
        gc.collect()
    gc.disable()
    try:
        yield
        if is_first:
            gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def without_compiler() -> Generator[None]:
    """Keep torch.optim's decorators from importing torch.compile, which takes half a second and 80 MB.

    The decorators keep the compiler out of three methods, which is needless if it was never imported. For the block,
    the methods are replaced by the undecorated ones; a lock keeps two threads from restoring each other's.
    """
    if "torch._dynamo" in sys.modules or not may_tune():
        yield
        return
    from torch.optim import Optimizer

    names = ("add_param_group", "state_dict", "load_state_dict")
    with _SWAP_LOCK:
        decorated = {name: getattr(Optimizer, name) for name in names}
        for name, method in decorated.items():
            setattr(Optimizer, name, getattr(method, "__wrapped__", method))
        try:
            yield
        finally:
            for name, method in decorated.items():
                setattr(Optimizer, name, method)


@cache
def raise_malloc_trim_threshold() -> None:
    """Make glibc keep the memory of a step's tensors for the next step instead of returning it to the system.

    Freeing one large block, which is never written to, raises the size from which glibc returns blocks. Without it a
    step with tensors of a megabyte spends up to a third of its time on page faults.
    """
    if may_tune():
        import torch

        torch.empty(33_000_000, dtype=torch.uint8)  # just below glibc's limit of 32 MiB
