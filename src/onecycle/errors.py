"""Every error that the library raises on purpose, and wording that messages share.

    OneCycleError
    ├── SettingError     (ValueError)       a number, name or option that cannot be used
    │   └── DeviceError                     an unknown device, or one this machine does not have
    ├── DataError        (ValueError)       arrays or tables that cannot be trained on
    │   ├── FileError                       a file that is missing, unreadable or damaged
    │   └── UnsafeFileError                 a file that asks to run code
    ├── ModelError       (ValueError)       a model that does not fit the data
    ├── NonFiniteLossError (ArithmeticError) the loss became NaN or infinite
    └── OutputError      (OSError)          something that cannot be written

Each message says where, what was found, what was expected and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class OneCycleError(Exception):
    """Base class of every error that the library raises on purpose.

    Attributes:
        exit_code: Exit code of the command line: 2 for a request that cannot be carried out, 1 for a run that failed.

    Example:
        >>> try:
        ...     data = DataBunch.from_table("train.csv", "label")
        ... except OneCycleError as error:
        ...     print(error)
    """

    exit_code = 2


class SettingError(OneCycleError, ValueError):
    """Raised for a number, name or option that cannot be used; also a ValueError.

    Example:
        >>> MLP(784)
        SettingError: MLP(784,): expected at least two sizes, for example MLP(784, 50, 10)
    """


class DeviceError(SettingError):
    """Raised for an unknown device, or one that this machine does not have.

    Example:
        >>> mnist(device="cuda:7")
        DeviceError: device "cuda:7": this machine has 1 of them, from cuda:0
    """


class DataError(OneCycleError, ValueError):
    """Raised for arrays or tables that cannot be trained on or predicted; also a ValueError.

    Example:
        >>> Learner([1, 2, 3], MLP(784, 50, 10))
        DataError: Learner takes a DataBunch, not a list; see DataBunch.create
    """


class FileError(DataError):
    """Raised for a file that is missing, unreadable or damaged; the message names it.

    Example:
        >>> load_predictor("nothing")
        FileError: nothing: no such folder; expected a bundle that onecycle wrote
    """


class UnsafeFileError(DataError):
    """Raised for a file that asks to run code. None of it was run.

    Example:
        >>> load_pickle("downloaded.pkl")
        UnsafeFileError: downloaded.pkl: asks for os.system, which arrays never need ...
    """


class ModelError(OneCycleError, ValueError):
    """Raised for a model that does not fit the data, or weights that do not fit the model; also a ValueError.

    Example:
        >>> learn.load("another")
        ModelError: models/another: weights of another model (it has head.weight that the model lacks)
    """


class NonFiniteLossError(OneCycleError, ArithmeticError):
    """Raised when the loss becomes NaN or infinite, which ends the fit; also an ArithmeticError.

    Attributes:
        exit_code: 1.

    Example:
        >>> learn.fit(1, lr=1e6)
        NonFiniteLossError: the loss became nan at step 8 (epoch 0, batch 8), ...
    """

    exit_code = 1


class OutputError(OneCycleError, OSError):
    """Raised for something that cannot be written; also an OSError. What was there before is unchanged.

    Attributes:
        exit_code: 1.

    Example:
        >>> learn.export("bundle")
        OutputError: bundle exists; give another name, or ask for it to be replaced (overwrite=True)
    """

    exit_code = 1


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `'; did you mean "epochs"?'` for the nearest known name, or an empty string."""
    names = {_normalized(str(other)): other for other in known}  # callers in Python may pass anything
    matches = get_close_matches(_normalized(str(name)), list(names), n=1, cutoff=0.7)
    return f'; did you mean "{names[matches[0]]}"?' if matches else ""


def _normalized(name: str) -> str:
    """Return the name for comparing, which ignores leading dashes and case."""
    return name.lstrip("-").lower()


def pluralize(count: int, noun: str, ending: str = "s") -> str:
    """Return a count with its noun, such as "1 row", "2,000 rows" or, with ending "es", "3 batches"."""
    return f"{count:,} {noun}{ending if count != 1 else ''}"
