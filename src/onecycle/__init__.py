"""onecycle: bunch the data, find the learning rate, run one cycle, look at the plots.

The public names are listed in `__init__.pyi`, and loaded on first use, so that `import onecycle` costs next to nothing.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULES = {name: module for module, name in re.findall(r"^from (\S+) import (\w+)", _STUB, re.M)}
__all__ = sorted(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll] -- the stub says what they are


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'onecycle' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
