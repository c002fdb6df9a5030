"""Every error the library raises on purpose.

    OneCycleError
    ├── SettingError     (ValueError)       a number, name or option that cannot be used
    │   └── DeviceError                     an unknown device, or one this machine does not have
    ├── DataError        (ValueError)       arrays or tables that cannot be trained on
    │   ├── FileError                       a file that is missing, unreadable or damaged
    │   └── UnsafeFileError                 a file that asks to run code
    ├── ModelError       (ValueError)       a model that does not fit the data
    ├── NonFiniteLossError (ArithmeticError) the loss became NaN or infinite
    └── OutputError      (OSError)          something that cannot be written

Each message says where, what was found, what was expected and what to do. `exit_code` is what the command line
exits with: 2 for a request that could not be carried out as asked, 1 for a run that failed.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class OneCycleError(Exception):
    """Base of every error the library raises on purpose."""

    exit_code = 2


class SettingError(OneCycleError, ValueError):
    """A number, name or option that cannot be used."""


class DeviceError(SettingError):
    """An unknown device, or one this machine does not have."""


class DataError(OneCycleError, ValueError):
    """Arrays or tables that cannot be trained on."""


class FileError(DataError):
    """A file that is missing, unreadable or damaged."""


class UnsafeFileError(DataError):
    """A file that asks to run code; nothing of it was run."""


class ModelError(OneCycleError, ValueError):
    """A model that does not fit the data."""


class NonFiniteLossError(OneCycleError, ArithmeticError):
    """The loss became NaN or infinite, so the fit was stopped."""

    exit_code = 1


class OutputError(OneCycleError, OSError):
    """Something that cannot be written."""

    exit_code = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`'; did you mean "epochs"?'` for the nearest known name, or an empty string."""
    names = {_bare(str(other)): other for other in known}  # callers in Python may give anything
    near = get_close_matches(_bare(str(name)), list(names), n=1, cutoff=0.7)
    return f'; did you mean "{names[near[0]]}"?' if near else ""


def _bare(name: str) -> str:
    """The name for comparing: the dashes of an option are no likeness, and capitals no difference."""
    return name.lstrip("-").lower()
