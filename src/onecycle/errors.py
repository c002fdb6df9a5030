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

import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_MAX_NAME, _MAX_COMPARED = 100, 2_000  # characters and names: a comparison takes the square of the length
# control characters, line ends but for the line feed and the tab, what changes the direction of text, what nobody sees
_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
_LINE_ENDS, _SURROGATES, _FILE_NAME_BYTES = "\n\t", "\ud800-\udfff", "\ud800-\udc7f\udd00-\udfff"
_UNPRINTABLE = {
    (one_line, keep_bytes): re.compile(
        f"[{_INVISIBLE}{_LINE_ENDS if one_line else ''}{_FILE_NAME_BYTES if keep_bytes else _SURROGATES}]"
    )
    for one_line in (False, True)
    for keep_bytes in (False, True)
}


class OneCycleError(Exception):
    """Base class of every error that the library raises on purpose.

    Attributes:
        exit_code: Exit code of the command line: 2 for a request that cannot be carried out, 1 for a run that failed.

    Args:
        message: What was wrong. Control characters, which names from files may have, are shown as escapes.

    Example:
        >>> try:
        ...     data = DataBunch.from_table("train.csv", "label")
        ... except OneCycleError as error:
        ...     print(error)
    """

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


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


def printable(text: str, one_line: bool = False, keep_bytes: bool = False) -> str:
    r"""Return text, perhaps of names from a file, that can do nothing to a terminal or to the text around it.

    Control characters, marks of the direction of writing, and parts of characters are shown as escapes such as \x1b;
    with `one_line` line feeds and tabs are, too. `keep_bytes` keeps the bytes of a file's name that is no text, which
    Python holds as parts of characters.
    """
    if text.isprintable():
        return text
    return _UNPRINTABLE[one_line, keep_bytes].sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `'; did you mean "epochs"?'` for the nearest known name, or an empty string."""
    wanted = _normalized(str(name))  # callers in Python may pass anything
    names = {_normalized(str(other)): other for other in known if len(str(other)) < _MAX_NAME}
    near = sorted(names, key=lambda other: abs(len(other) - len(wanted)))[:_MAX_COMPARED]
    matches = get_close_matches(wanted, near, n=1, cutoff=0.7) if len(wanted) < _MAX_NAME else []
    return f'; did you mean "{names[matches[0]]}"?' if matches else ""


def _normalized(name: str) -> str:
    """Return the name for comparing, which ignores leading dashes and case."""
    return name.lstrip("-").lower()


def enumerate_first(texts: Sequence[str], most: int = 4) -> str:
    """Return the first texts with semicolons between them, and how many more there are, if any."""
    more = f"; and {len(texts) - most:,} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


def pluralize(count: int, noun: str, ending: str = "s") -> str:
    """Return a count with its noun, such as "1 row", "2,000 rows" or, with ending "es", "3 batches"."""
    return f"{count:,} {noun}{ending if count != 1 else ''}"


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the line of the user's code that called the library, however deep in the library this is called."""
    depth, frame = 1, sys._getframe()  # pyright: ignore[reportPrivateUsage] -- documented
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)


def _is_inside(module: str) -> bool:
    """Tell whether a frame of this module lies between the user and a warning: decorators leave some of theirs."""
    return module.partition(".")[0] in ("onecycle", "torch", "contextlib", "functools")
