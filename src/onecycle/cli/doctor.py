"""`onecycle doctor`: what it runs on, and whether everything it needs is there."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from onecycle import __version__
from onecycle.core.config import Config
from onecycle.core.device import pick_device
from onecycle.data.datasets import mnist_arrays
from onecycle.errors import OneCycleError

NEEDED = ("torch", "numpy", "matplotlib", "pyarrow", "safetensors", "typer", "rich", "jinja2", "platformdirs")
OPTIONAL = ("pillow",)


def doctor(as_json: bool) -> int:
    """Print what there is; the exit code is 1 where something is missing or damaged."""
    found: dict[str, str] = {
        "onecycle": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    found |= {name: _version(name) or "MISSING; install onecycle again" for name in NEEDED}
    found |= {name: _version(name) or "not installed (optional)" for name in OPTIONAL}
    found |= {"devices": ", ".join(_devices()), "default device": _default_device()}
    found["threads"] = f"{torch.get_num_threads()} of {os.cpu_count()} CPUs"
    found |= {"home": str(Config().home()), "data": str(Config().data_path())}
    found["embedded mnist"] = _mnist()
    if as_json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16}{value}")
    return 1 if any(value.startswith(("MISSING", "BAD")) for value in found.values()) else 0


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    found = ["cpu"]
    for index in range(torch.cuda.device_count()):
        found.append(f"cuda:{index} ({torch.cuda.get_device_name(index)})")
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _default_device() -> str:
    try:
        return str(pick_device())
    except OneCycleError as error:  # ONECYCLE_DEVICE names one that is not there
        return f"BAD: {error}"


def _mnist() -> str:
    try:
        parts = mnist_arrays()
    except OneCycleError as error:
        return f"BAD: {error}"
    return f"whole ({' / '.join(f'{len(labels):,}' for _, labels in parts)} images)"
