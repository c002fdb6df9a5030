"""Trace the tensor operations of one forward and backward pass while they run.

torch passes every operation below autograd to a dispatch mode, backward pass included. The trace holds the kernels that
eager training calls, in their order. Only autograd's own bookkeeping (`detach`, a transpose of a transpose) and unused
results are dropped.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the documented way in, private by name only

from onecycle.core.writes import written_tensors

T = TypeVar("T")


class CannotCaptureError(Exception):
    """A model, loss or batch cannot be captured; training continues eagerly.

    Args:
        reason: Why.
        hint: What would make it capturable.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True)
class Value:
    """The name of a tensor in a trace: x0 is an input, s0 a tensor of the state, v0 the result of an operation."""

    name: str


@dataclass
class Op:
    """One operation, with a Value in place of each tensor.

    Attributes:
        func: The operator.
        args: Its arguments.
        kwargs: Its keyword arguments.
        results: A Value, None, or lists of them.
        ndim: Number of dimensions of the result, if it is one tensor.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: Any
    ndim: int = 0


@dataclass
class Trace:
    """Operations on inputs and state.

    Attributes:
        ops: The operations, in order.
        state: Parameters, buffers and constants, named s0, s1, …
        outputs: The values that were asked for; None for those that do not exist.
        inputs: How many inputs there are, named x0, x1, …
        needs_grad_mode: Whether an operator looks at torch's grad mode, which is on in an eager step.
    """

    ops: list[Op]
    state: list[Tensor]
    outputs: list[Value | None]
    inputs: int
    needs_grad_mode: bool = False

    @property
    def writes_inputs(self) -> bool:
        """Whether an operation may write to an input, or to a view of one."""
        return any(op.func._schema.is_mutable for op in self.ops)


class Tracer(TorchDispatchMode):
    """Records the operations that run inside `with tracer:`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports torch.compile for nothing, which takes half a second

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._ops: list[Op] = []
        self._state: list[Tensor] = []
        self._inputs = len(inputs)
        self._seen: dict[int, Value] = {id(tensor): Value(f"x{i}") for i, tensor in enumerate(inputs)}
        self._watched: dict[int, ref[Tensor]] = {}  # to forget a tensor's name when it dies: its id is reused
        self._results: set[int] = {_storage(tensor) for tensor in inputs}  # memory that differs from batch to batch
        self._count = 0
        self._refusal: CannotCaptureError | None = None
        self._saved: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    @contextmanager
    def restoring(self) -> Generator[None]:
        """Undo, when the block ends, what operations wrote to tensors that existed before."""
        try:
            yield
        finally:
            for storage, content in self._saved.values():
                storage.copy_(content)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if depends_on_values(func, args):
            raise self._refuse("depends on the values in a batch (an `if`, `.item()`, a mask or the like)", _WHERE)
        if func.namespace != "aten":
            raise self._refuse(f"calls {func.namespace}::{func._opname}, an operator that is not torch's own")
        if func.overloadpacket in _TWO_WAYS or func in _TWO_WAYS:
            raise self._refuse(f"calls {func._opname}, which torch computes in another way while it is traced")
        self._save(func, args, kwargs)
        results = func(*args, **kwargs)
        if func is torch.ops.aten.ones_like.default and not results.ndim:
            self._add_state(results)  # the start of the backward pass: a constant
            return results
        # before the results get their names: an operation that writes in place returns its argument
        op = Op(func, _map(args, self._name), _map(kwargs, self._name), None)
        if func is torch.ops.aten.detach.default:
            self._remember(results, op.args[0])
        else:
            op.results, op.ndim = _map(results, self._new_name), getattr(results, "ndim", 0)
            self._ops.append(op)
        return results

    def _refuse(self, what: str, hint: str = "") -> CannotCaptureError:
        """Return the error to raise, which `trace` raises again if the code caught it."""
        self._refusal = self._refusal or CannotCaptureError(what, hint)
        return self._refusal

    def _save(self, func: Any, args: Any, kwargs: Any) -> None:
        """Save the memory that an operation is about to write to, unless it was allocated while tracing."""
        for tensor in written_tensors(func, args, kwargs):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._results | self._saved.keys():
                self._saved[storage.data_ptr()] = storage, storage.clone()

    def trace(self, outputs: Sequence[Tensor | None], trained: Sequence[Tensor] = ()) -> Trace:
        """Return what ran so far, without the operations that `outputs` do not need.

        Args:
            outputs: The results of the trace.
            trained: The parameters whose gradients are among them.

        Raises:
            CannotCaptureError: If something cannot be replayed.
        """
        if self._refusal is not None:
            raise self._refusal
        named = [None if output is None else self._name(output) for output in outputs]
        replaced = _simplify(self._ops)
        named = [None if value is None else replaced.get(value, value) for value in named]
        self._seen.clear()
        self._watched.clear()
        known = {id(parameter) for parameter in trained}
        if trained and any(tensor.requires_grad and id(tensor) not in known for tensor in self._state):
            raise CannotCaptureError("uses a tensor with a gradient that is not a parameter of the model")
        ops = _needed(self._ops, named)
        return Trace(ops, self._state, named, self._inputs, any(op.func in _READ_GRAD_MODE for op in ops))

    def is_result(self, tensor: Tensor) -> bool:
        """Whether the tensor's memory was allocated while tracing, or belongs to an input."""
        return bool(_storage(tensor)) and _storage(tensor) in self._results  # an empty tensor has none

    def _name(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._seen:
            if self.is_result(tensor):
                raise self._refuse("passes a tensor on in a way that cannot be followed")
            self._add_state(tensor)
        return self._seen[id(tensor)]

    def _add_state(self, tensor: Tensor) -> None:
        self._seen[id(tensor)] = Value(f"s{len(self._state)}")
        self._state.append(tensor)

    def _new_name(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._seen:
            self._count += 1
            self._remember(tensor, Value(f"v{self._count}"))
            if _storage(tensor) not in {_storage(known) for known in self._state}:
                self._results.add(_storage(tensor))
        return self._seen[id(tensor)]

    def _remember(self, tensor: Tensor, value: Value) -> None:
        """Name the tensor until it dies: keeping all tensors alive would take much more memory than a step."""
        key = id(tensor)

        def forget(_: Any) -> None:
            del self._seen[key], self._watched[key]

        self._seen[key], self._watched[key] = value, ref(tensor, forget)


_WHERE = "torch.where, or a product with the mask, can be captured"
# what torch's C++ code computes in another way if a dispatch mode is on, with other last bits: benchmarks/operators.py
_TWO_WAYS = {
    *(getattr(torch.ops.aten, name) for name in ("_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_lstsq")),
    *(getattr(torch.ops.aten, name) for name in ("cumprod", "linalg_householder_product", "ormqr")),
    *(torch.ops.aten.masked_fill.Tensor, torch.ops.aten.masked_fill_.Tensor),
}
_READ_GRAD_MODE = (torch.ops.aten.mkldnn_rnn_layer.default,)  # which keeps a workspace for the backward pass


@contextmanager
def restoring_memory(tensors: Iterable[Tensor]) -> Generator[None]:
    """Undo, when the block ends, what it wrote to the memory of the tensors."""
    storages = {_storage(tensor): tensor.untyped_storage() for tensor in tensors}
    contents = [(storage, storage.clone()) for storage in storages.values()]
    try:
        yield
    finally:
        for storage, content in contents:
            storage.copy_(content)


def depends_on_values(func: Any, args: Any) -> bool:
    """Whether the result or its shape depends on the values of a tensor, and not on its shape alone."""
    if func is torch.ops.aten.index.Tensor:  # by index, or by a mask
        return has_mask(args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def has_mask(indices: Any) -> bool:
    """Whether one of the indices is a mask."""
    return any(index.dtype in (torch.bool, torch.uint8) for index in all_in(indices, Tensor))


def values_in(structure: Any) -> Iterable[Value]:
    """Yield the names of the tensors in an operation's arguments or results."""
    return all_in(structure, Value)


def all_in(structure: Any, kind: type[T]) -> Iterable[T]:
    """Yield everything of this type in nested lists, tuples and dicts."""
    if isinstance(structure, kind):
        yield structure
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from all_in(item, kind)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from all_in(item, kind)


def _simplify(ops: list[Op]) -> dict[Value, Value]:
    """Undo two detours of autograd: users of t(t(a)) use a, and a bias gradient is summed to its shape at once.

    Returns the values that were replaced, with what replaces them.
    """
    aten, made_by, replaced = torch.ops.aten, dict[Value, Op](), dict[Value, Value]()

    def current(value: Value) -> Value:
        return replaced.get(value, value)

    for op in ops:
        op.args, op.kwargs = _map(op.args, current), _map(op.kwargs, current)
        source = made_by.get(op.args[0]) if op.func in (aten.t.default, aten.view.default) else None
        if source is not None and op.func is source.func is aten.t.default:
            replaced[op.results] = source.args[0]
        if source is not None and op.func is aten.view.default and _sums_rows(source) and len(op.args[1]) == 1:
            op.func, op.args = source.func, (source.args[0], [0])
        made_by |= dict.fromkeys(values_in(op.results), op)
    return replaced


def _sums_rows(op: Op) -> bool:
    """Whether the operation sums a matrix over its rows with keepdim=True."""
    return op.func is torch.ops.aten.sum.dim_IntList and op.args[1:] == ([0], True) and op.ndim == 2 and not op.kwargs


def _needed(ops: list[Op], outputs: Iterable[Value | None]) -> list[Op]:
    """Return the operations that `outputs` need, and those that write to a tensor or draw random numbers."""
    needed_values = {value for value in outputs if value is not None}
    needed: list[Op] = []
    for op in reversed(ops):
        has_effect = op.func._schema.is_mutable or torch.Tag.nondeterministic_seeded in op.func.tags
        if has_effect or needed_values.intersection(values_in(op.results)):
            needed.append(op)
            needed_values.update(values_in((op.args, op.kwargs)))
    return needed[::-1]


def _map(structure: Any, change: Any) -> Any:
    """Apply `change` to each tensor or value in nested lists, tuples and dicts."""
    if isinstance(structure, Tensor | Value):
        return change(structure)
    if isinstance(structure, list | tuple):
        return type(structure)([_map(item, change) for item in structure])
    if isinstance(structure, dict):
        return {key: _map(value, change) for key, value in structure.items()}
    return structure


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
