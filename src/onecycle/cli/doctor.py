"""`onecycle doctor`: what onecycle runs on, and whether everything it needs is there."""

import json
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

import torch

from onecycle import __version__
from onecycle.cli.terminal import print_table
from onecycle.core.config import Config
from onecycle.core.cores import usable_cores
from onecycle.core.device import pick_device
from onecycle.data.datasets import mnist_arrays
from onecycle.errors import OneCycleError

_NOT_FOR_USERS = ("dev", "notebook")  # extras that the library itself never imports


def doctor(as_json: bool) -> int:
    """Print versions, devices, paths and the state of the data. Return 1 if something is missing or damaged, else 0."""
    needed, optional = _dependencies()
    facts: dict[str, str] = {
        "onecycle": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    facts |= {name: _version(name) or "MISSING; install onecycle again" for name in needed}
    facts |= {name: _version(name) or "not installed (optional)" for name in optional}
    facts |= {"devices": ", ".join(_devices()), "default device": _default_device()}
    facts["threads"] = f"{torch.get_num_threads()} of {usable_cores()} cores; a fit uses what its model keeps busy"
    facts |= {"home": str(Config().home()), "data": str(Config().data_path())}
    facts["embedded mnist"] = _check_mnist()
    if as_json:
        print(json.dumps(facts))
    else:
        print_table([[*pair] for pair in facts.items()])
    return 1 if any(fact.startswith(("MISSING", "BAD")) for fact in facts.values()) else 0


def _dependencies() -> tuple[list[str], list[str]]:
    """Return the packages that onecycle needs, and those of its extras, as its own metadata lists them."""
    needed: list[str] = []
    optional: list[str] = []
    for requirement in requires("onecycle") or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if extra is None:
            needed.append(name)
        elif extra[1] not in _NOT_FOR_USERS:
            optional.append(name)
    return needed, optional


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        devices.append(f"cuda:{index} ({torch.cuda.get_device_name(index)})")
    return [*devices, "mps"] if torch.backends.mps.is_available() else devices


def _default_device() -> str:
    try:
        return str(pick_device())
    except OneCycleError as error:  # ONECYCLE_DEVICE names one that is not there
        return f"BAD: {error}"


def _check_mnist() -> str:
    try:
        sets = mnist_arrays()
    except OneCycleError as error:
        return f"BAD: {error}"
    return f"whole ({' / '.join(f'{len(labels):,}' for _, labels in sets)} images)"
