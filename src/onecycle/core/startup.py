"""What happens once, when a process starts."""

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def freeze_import_objects() -> Generator[None]:
    """For imports: what they make lasts as long as the process, so Python need not look for garbage among it.

    torch alone makes a thousand modules. Looking through them, again and again, takes a second of the lesson's five.
    What was garbage before is let go. In a program that has torch already, whose objects may yet become garbage, all of
    it stays subject to search.
    """
    collecting = gc.isenabled()
    is_first = "torch" not in sys.modules
    if is_first:
        gc.collect()
    gc.disable()
    try:
        yield
        if is_first:
            gc.freeze()
    finally:
        if collecting:
            gc.enable()
