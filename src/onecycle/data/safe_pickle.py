"""Reads pickles of NumPy arrays without being able to run code.

`pickle.load` runs whatever a file asks it to. This reader unpacks the file under a cap, carries its opcodes
(pickle_opcodes.py) out on a machine that has no way to call anything (pickle_machine.py), and makes arrays of the
checked stand-ins that the machine leaves (pickle_arrays.py).
"""

import os
import struct
from pathlib import Path
from typing import cast

from onecycle.core.errors import FileError, OneCycleError, UnsafeFileError
from onecycle.core.opening import MAX_BYTES, Budget, cap_of, read_unpacked
from onecycle.data.pickle_arrays import Array, Damaged, DType, Global, Span, Unsafe
from onecycle.data.pickle_machine import Machine
from onecycle.data.pickle_opcodes import run

MAX_DEPTH = 100
_SLACK = 64 * 2**20  # small objects may take this much beyond the cap, so that the cap can be a file's exact size
_OTHER_KINDS = {
    b"\x93NUMPY": "a NumPy .npy file; read it with read_npy",
    b"PK\x03\x04": "a zip archive, such as .npz; read an .npz with read_npz",
    b"\x89PNG\r\n": "a PNG image; read it with read_png",
    b"\x00\x00\x08": "an IDX file; read it with read_idx",
}


def load_pickle(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> object:
    """Read a pickle of NumPy arrays, gzip-compressed or not, written by Python 2 or 3 in any protocol.

    Returns the nested tuples, lists and dicts that were saved, with writable `numpy.ndarray`s of numbers or booleans
    in this machine's byte order. Text that Python 2 wrote is read as latin-1. Dict keys must be text, bytes, numbers
    or None.

    The file may unpack to `max_bytes` (2 GiB; a packed file to 128 MiB or 200 times its size, unless another number is
    given), and what is made of it may take as much again (by default 32 MiB or 8 times what was unpacked).

    Raises UnsafeFileError when the file names a function or opcode that arrays do not need: nothing of it has run.
    Raises FileError when the file is missing, damaged, too large or no pickle of arrays.
    """
    path = Path(path)
    content = read_unpacked(path, max_bytes)
    for magic, kind in _OTHER_KINDS.items():
        if content.startswith(magic):
            raise FileError(f"{path}: {kind}; expected a pickle of NumPy arrays")
    machine = Machine(content, Budget(path, cap_of(8 * len(content), 2**25, max_bytes), _SLACK))
    try:
        return _finish(run(machine), {})
    except OneCycleError:
        raise
    except Unsafe as error:
        raise UnsafeFileError(
            f"{path}: {error} (byte {machine.start:,}); nothing of it was run. Expected arrays, numbers and text in "
            "tuples, lists and dicts; do not open this file with pickle.load unless you trust whoever made it"
        ) from error
    except Damaged as error:
        raise _damaged(path, str(error), machine.start) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error) as error:
        # whatever else an ill-formed opcode runs into: an empty stack, bad UTF-8, the wrong number of arguments
        raise _damaged(path, f"has an opcode that cannot be carried out ({error})", machine.start) from error


def _damaged(path: Path, what: str, position: int) -> FileError:
    return FileError(
        f"{path}: {what} (byte {position:,}); the file is damaged or no pickle of NumPy arrays; "
        "copy or download it again, or save it anew"
    )


def _finish(value: object, done: dict[int, tuple[object, object]], depth: int = 0) -> object:
    """`value` with every stand-in in it made into what it stands for.

    `done` maps the id of each list, tuple and dict met so far to (itself, its finished form), so that what the
    pickle shares stays shared and is walked once, however often it is mentioned.
    """
    if isinstance(value, (Span, Array)):
        return value.made()
    if isinstance(value, (DType, Global)):
        raise Damaged(f"holds {value} outside an array; expected arrays, numbers and text")
    if not isinstance(value, (dict, list, tuple)):
        return value
    whole = cast(dict[object, object] | list[object] | tuple[object, ...], value)
    known = done.get(id(whole))
    if known is not None:
        if known[1] is _UNFINISHED:
            raise Damaged("holds a list or dict that contains itself; expected plain nested data")
        return known[1]
    if depth >= MAX_DEPTH:
        raise Damaged(f"is nested deeper than {MAX_DEPTH} levels; expected plain nested data")
    done[id(whole)] = (whole, _UNFINISHED)
    result: object = whole  # lists and dicts are filled where they are
    if isinstance(whole, dict):
        for key, item in whole.items():
            whole[key] = _finish(item, done, depth + 1)
    elif isinstance(whole, list):
        for index, item in enumerate(whole):
            whole[index] = _finish(item, done, depth + 1)
    else:
        result = tuple([_finish(item, done, depth + 1) for item in whole])
    done[id(whole)] = (whole, result)
    return result


_UNFINISHED = object()
