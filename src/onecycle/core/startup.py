"""What happens once, when a process starts."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def lasting() -> Generator[None]:
    """For imports: what they make lasts as long as the process, so Python need not look for garbage among it.

    torch alone makes a thousand modules. Looking through them, again and again, takes a second of the lesson's five.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collecting:
            gc.enable()
