"""Which memory torch's operators write to, so that it can be copied before it changes."""

import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from onecycle.core.dispatch import DispatchMode
from onecycle.core.nested import tensors_in

_DISPATCH = "__torch_dispatch__"  # a class that has its own has memory of its own kind
_RUNNING = ("running_mean", "running_var")  # written by batch_norm, whose schema does not say so

_LOCK = threading.Lock()
_eager, _blocks = ExitStack(), 0  # how many blocks of `uncompiled` are under way


def written_tensors(func: Any, args: Any, kwargs: Any) -> Iterable[Tensor]:
    """Yield the tensors that an operator writes to when it is called with these arguments."""
    for i, argument in enumerate(func._schema.arguments):
        if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in _RUNNING:
            yield from tensors_in(args[i] if i < len(args) else kwargs.get(argument.name))


class WatchedMemory:
    """Memory of tensors and arrays that is copied when, and only if, something is about to write to it.

    Attributes:
        copied: Bytes that were copied so far.
    """

    def __init__(self) -> None:
        self.copied = 0
        self._watched: dict[int, torch.UntypedStorage] = {}
        self._versions: list[tuple[Tensor, int]] = []  # torch's own count of changes
        self._copies: dict[int, torch.UntypedStorage] = {}
        self._arrays: list[Any] = []
        self._array_copies: dict[int, Any] = {}

    def add(self, tensor: Tensor) -> bool:
        """Watch a tensor's memory; return False, and do nothing, if that is impossible."""
        if tensor.layout != torch.strided or getattr(type(tensor), _DISPATCH) is not getattr(Tensor, _DISPATCH):
            return False
        if not (start := _start(tensor)):
            return False  # it is empty
        self._watched[start] = tensor.untyped_storage()
        self._versions.append((tensor, tensor._version))
        return True

    def add_array(self, array: Any) -> bool:
        """Watch an array, which is read-only in `watching`; return False, and do nothing, if that is impossible."""
        if not array.flags.forc:
            return False
        self._arrays.append(array)
        return True

    @contextmanager
    def watching(self) -> Generator[None]:
        """Copy, in the block, what is about to be written to. Writing to an array raises ValueError."""
        with ExitStack() as stack:
            for array in sorted(self._arrays, key=_is_owner):  # the owners last: writable again before their views
                stack.callback(array.setflags, write=True)
                array.setflags(write=False)
            stack.enter_context(uncompiled())
            stack.enter_context(_Escapes(self))
            stack.enter_context(_Writes(self))
            yield

    def before_write(self, tensor: Tensor) -> None:
        """Copy the memory that the tensor is in, if it is watched and was not copied yet."""
        start = _start(tensor)
        if start in self._watched and start not in self._copies:
            self._copies[start] = self._watched[start].clone()
            self.copied += self._watched[start].nbytes()
        for array in self._arrays if start else ():  # of which torch.from_numpy makes a tensor, read-only or not
            if array.ctypes.data <= start < array.ctypes.data + array.nbytes and id(array) not in self._array_copies:
                self._array_copies[id(array)] = array.copy()
                self.copied += array.nbytes

    def unseen(self) -> list[Tensor]:
        """Return the tensors that torch says have changed although no operator was seen that writes to them."""
        changed = (tensor for tensor, version in self._versions if tensor._version != version)
        return [
            tensor for tensor in changed if (start := _start(tensor)) in self._watched and start not in self._copies
        ]

    def put_back(self) -> None:
        """Put the copies back; not in `watching`."""
        for start, content in self._copies.items():
            if self._watched[start].nbytes() != content.nbytes():
                self._watched[start].resize_(content.nbytes())
            self._watched[start].copy_(content)
        for array in self._arrays:
            if id(array) in self._array_copies:
                np.copyto(array, self._array_copies[id(array)])


@contextmanager
def uncompiled() -> Generator[None]:
    """In the block, run functions that torch.compile compiles as they were written.

    torch cannot compile while a dispatch mode watches the operators, and would not compile such a function afterwards
    either. The setting is one of the process: it ends with the last block, whichever thread that is in.
    """
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes half a second
        yield
        return
    global _blocks
    with _LOCK:
        if not _blocks:
            _eager.enter_context(torch.compiler.set_stance("force_eager"))
        _blocks += 1
    try:
        yield
    finally:
        with _LOCK:
            _blocks -= 1
            if not _blocks:
                _eager.close()


class _Writes(DispatchMode):
    supports_higher_order_operators = True

    def __init__(self, memory: WatchedMemory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        has_schema = hasattr(func, "_schema")  # not an operator that takes functions, which may write to anything
        for tensor in written_tensors(func, args, kwargs) if has_schema else tensors_in([args, kwargs]):
            self._memory.before_write(tensor)
        return func(*args, **kwargs)


class _Escapes(TorchFunctionMode):
    """Notices when a tensor's memory is given to NumPy or other code, which writes without an operator of torch."""

    def __init__(self, memory: WatchedMemory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _ESCAPES:
            self._memory.before_write(args[0])
        return func(*args, **(kwargs or {}))


_ESCAPES: set[Any] = {
    *(Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr),
    *(Tensor.untyped_storage, Tensor.storage, Tensor.__reduce_ex__),
}


def _start(tensor: Tensor) -> int:
    """Return the address of the memory that a tensor is in; 0 if it has none."""
    try:
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage] -- the documented way
            return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse, or of a class with memory of its own kind
        return 0


def _is_owner(array: Any) -> bool:
    return array.base is None
