"""The device that a run uses, and its random generators."""

import os
import platform
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np
import torch

from onecycle.errors import DeviceError, did_you_mean

KNOWN_DEVICES = ("cpu", "cuda", "mps")


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device to train on: `name`, else `ONECYCLE_DEVICE`, else CUDA, else MPS, else the CPU.

    Raises DeviceError for an unknown device, and for one that this machine does not have.
    """
    name = name if name is not None else os.environ.get("ONECYCLE_DEVICE") or None
    if name is None:
        return torch.device(next((kind for kind in ("cuda", "mps") if _is_available(kind)), "cpu"))
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError, ValueError):
        device = None
    if device is None or device.type not in KNOWN_DEVICES:
        hint = did_you_mean(str(name), KNOWN_DEVICES)
        raise DeviceError(f'unknown device "{name}"; expected cpu, cuda, cuda:N or mps{hint}')
    if not _is_available(device.type):
        raise DeviceError(f'device "{name}" is not on this machine; use "cpu", or leave the device out')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f'device "{name}": this machine has {torch.cuda.device_count()} of them, from cuda:0')
    return device


def _is_available(kind: str) -> bool:
    return kind == "cpu" or (torch.cuda if kind == "cuda" else torch.backends.mps).is_available()


def versions(device: torch.device) -> dict[str, str]:
    """Return the versions of Python and of the libraries, and the device."""
    from onecycle import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "onecycle": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(terse=True),
        "device": f"{device} ({name})",
    }


# --- random generators ------------------------------------------------------------------------------------------------


def default_seed() -> int:
    """Return the seed of torch's global generator, set by `torch.manual_seed` or random for each process.

    Reading it does not advance that generator.
    """
    return torch.initial_seed() % 2**63


def derived_seed(seed: int, *path: int) -> int:
    """Return a seed that is a function of `seed` and `path` (for example the epoch and what it is for)."""
    state = np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))  # torch takes 63 bits


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of `device`, and no other (`torch.manual_seed` seeds all)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def preserve_rng_state(device: torch.device, is_needed: Callable[[], bool] = lambda: True) -> Generator[None]:
    """Restore torch's global generators (the CPU's and `device`'s) when the block ends.

    Python's and NumPy's are left to the loader, since data sets use them for augmentation.

    Args:
        device: The device whose generator is restored besides the CPU's.
        is_needed: Asked at the end. False if the block drew no numbers: fits in other threads are not disturbed then.
    """
    states = get_rng_states(device)
    try:
        yield
    finally:
        if is_needed():
            set_rng_states(states, device)


@contextmanager
def preserve_all_rng_states(device: torch.device) -> Generator[None]:
    """Restore the global generators of Python, NumPy and torch when the block ends."""
    with preserve_python_rng_states(), preserve_rng_state(device):
        yield


@contextmanager
def preserve_python_rng_states() -> Generator[None]:
    """Restore the global generators of Python and NumPy when the block ends."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def get_rng_states(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's global generators of the CPU and of `device`, by device type."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_rng_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the states that `get_rng_states` returned; that of another device type is ignored."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type], device)
