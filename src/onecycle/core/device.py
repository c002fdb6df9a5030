"""What a run ran on."""

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

from onecycle.errors import DeviceError, did_you_mean

KNOWN_DEVICES = ("cpu", "cuda", "mps")


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device to train on: `name`, else `ONECYCLE_DEVICE`, else CUDA, else MPS, else the CPU.

    Raises DeviceError for an unknown device and for one that this machine does not have.
    """
    wanted = name if name is not None else os.environ.get("ONECYCLE_DEVICE") or None
    if wanted is None:
        return torch.device(next((kind for kind in ("cuda", "mps") if _is_there(kind)), "cpu"))
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError, ValueError):
        raise _unknown_device(str(wanted)) from None
    if device.type not in KNOWN_DEVICES:
        raise _unknown_device(str(wanted))
    if not _is_there(device.type):
        raise DeviceError(f'device "{wanted}" is not on this machine; use "cpu", or leave the device out')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f'device "{wanted}": this machine has {torch.cuda.device_count()} of them, from cuda:0')
    return device


def _is_there(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return True


def _unknown_device(name: str) -> DeviceError:
    return DeviceError(f'unknown device "{name}"; expected cpu, cuda, cuda:N or mps{did_you_mean(name, KNOWN_DEVICES)}')


def default_seed() -> int:
    """The seed of torch's global generator: what `torch.manual_seed` was given, else random for each process.

    Reading it does not move that generator.
    """
    return torch.initial_seed() % 2**63


def derived_seed(seed: int, *path: int) -> int:
    """A seed that is a function of `seed` and `path` (for example the epoch and what it is for)."""
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
def preserve_rng_state(device: torch.device) -> Generator[None]:
    """Lend torch's global generators (the CPU's and `device`'s) to the block and put them back as they were.

    Not those of Python and NumPy: a loader lends these too, since data sets augment with them.
    """
    states = get_rng_states(device)
    try:
        yield
    finally:
        set_rng_states(states, device)


def get_rng_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global generators of the CPU and of `device`, by their kind."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state(device)
    return states


def set_rng_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put such states back; a state of another kind of device is left out."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type], device)


def versions(device: torch.device) -> dict[str, str]:
    """Versions of Python and the libraries, and the device."""
    from onecycle import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return {
        "onecycle": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(terse=True),
        "device": f"{device} ({name}{threads})",
    }
