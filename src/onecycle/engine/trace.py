"""A trace: the tensor operations of one forward and backward pass, written down while they run.

torch hands every operation below autograd to a dispatch mode, backward pass included. What is written down are the
kernels that eager training calls, in their order. Only autograd's own bookkeeping (`detach`, a transpose of a
transpose) and what nobody uses is dropped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the documented way in, private by name only

Found = TypeVar("Found")


class CannotCaptureError(Exception):
    """Why a model, a loss or a batch cannot be captured; eager training goes on."""


@dataclass(frozen=True)
class Value:
    """A tensor in a trace, by name: x… an input, s… a tensor that was there before, v… the result of an operation."""

    name: str


@dataclass
class Op:
    """One operation; `args` and `kwargs` hold a Value in the place of each tensor, `results` a Value, None or lists."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: Any
    ndim: int = 0  # of the result, where that is one tensor


@dataclass
class Trace:
    """What was written down: operations over `state` (parameters, buffers, constants) and the inputs."""

    ops: list[Op]
    state: list[Tensor]
    outputs: list[Value | None]
    inputs: int


class Tracer(TorchDispatchMode):
    """Writes down what runs inside `with tracer:`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch.compile is imported for nothing, which takes half a second

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._ops: list[Op] = []
        self._state: list[Tensor] = []
        self._inputs = len(inputs)
        self._seen: dict[int, Value] = {id(tensor): Value(f"x{i}") for i, tensor in enumerate(inputs)}
        self._watched: dict[int, ref[Tensor]] = {}  # forget a tensor's name when it dies: its id is used again
        self._results: set[int] = {_storage(tensor) for tensor in inputs}  # memory that differs from batch to batch
        self._count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if depends_on_values(func, args):
            raise CannotCaptureError("it depends on the values in a batch (an `if`, `.item()`, a mask or the like)")
        found = func(*args, **kwargs)
        if func is torch.ops.aten.ones_like.default and not found.ndim:
            self._add_state(found)  # where the backward pass begins: a constant
            return found
        # before the results get their names: an operation that writes in place gives back what it was given
        op = Op(func, _map(args, self._name), _map(kwargs, self._name), None)
        if func is torch.ops.aten.detach.default:
            self._remember(found, op.args[0])
        else:
            op.results, op.ndim = _map(found, self._new_name), getattr(found, "ndim", 0)
            self._ops.append(op)
        return found

    def trace(self, outputs: Sequence[Tensor | None]) -> Trace:
        """What has run so far, `outputs` being what is wanted of it; the rest is dropped."""
        named = [None if output is None else self._name(output) for output in outputs]
        same = _simplify(self._ops)
        named = [None if value is None else same.get(value, value) for value in named]
        self._seen.clear()
        self._watched.clear()
        return Trace(_needed(self._ops, named), self._state, named, self._inputs)

    def is_result(self, tensor: Tensor) -> bool:
        """Whether the tensor's memory was made while tracing, or is an input's."""
        return bool(_storage(tensor)) and _storage(tensor) in self._results  # an empty tensor has none

    def _name(self, tensor: Tensor) -> Value:
        if id(tensor) not in self._seen:
            if self.is_result(tensor):
                raise CannotCaptureError("it hands on a tensor in a way that cannot be followed")
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
        """Until it dies: a trace that held all its tensors would take much more memory than a step."""
        key = id(tensor)

        def forget(_: Any) -> None:
            del self._seen[key], self._watched[key]

        self._seen[key], self._watched[key] = value, ref(tensor, forget)


def depends_on_values(func: Any, args: Any) -> bool:
    """Whether what comes out, or its shape, is a matter of the numbers in a tensor, and not of its shape alone."""
    if func is torch.ops.aten.index.Tensor:  # by place, or by a mask
        return has_mask(args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def has_mask(indices: Any) -> bool:
    """Whether one of the indices picks rows by true and false."""
    return any(index.dtype in (torch.bool, torch.uint8) for index in all_in(indices, Tensor))


def values_in(structure: Any) -> Iterable[Value]:
    """The tensors in an operation's arguments or results, by name."""
    return all_in(structure, Value)


def all_in(structure: Any, kind: type[Found]) -> Iterable[Found]:
    """Whatever is of this kind in nested lists, tuples and dicts."""
    if isinstance(structure, kind):
        yield structure
    elif isinstance(structure, list | tuple):
        for item in structure:
            yield from all_in(item, kind)
    elif isinstance(structure, dict):
        for item in structure.values():
            yield from all_in(item, kind)


def _simplify(ops: list[Op]) -> dict[Value, Value]:
    """Undo two detours of autograd's: users of t(t(a)) use a, and a bias' gradient is summed to its shape at once.

    Gives the values that others stand for now.
    """
    aten, made_by, same = torch.ops.aten, dict[Value, Op](), dict[Value, Value]()

    def current(value: Value) -> Value:
        return same.get(value, value)

    for op in ops:
        op.args, op.kwargs = _map(op.args, current), _map(op.kwargs, current)
        source = made_by.get(op.args[0]) if op.func in (aten.t.default, aten.view.default) else None
        if source is not None and op.func is source.func is aten.t.default:
            same[op.results] = source.args[0]
        if source is not None and op.func is aten.view.default and _sums_rows(source) and len(op.args[1]) == 1:
            op.func, op.args = source.func, (source.args[0], [0])
        made_by |= dict.fromkeys(values_in(op.results), op)
    return same


def _sums_rows(op: Op) -> bool:
    """Whether it sums a matrix over its rows, and keeps the dimension."""
    return op.func is torch.ops.aten.sum.dim_IntList and op.args[1:] == ([0], True) and op.ndim == 2 and not op.kwargs


def _needed(ops: list[Op], outputs: Iterable[Value | None]) -> list[Op]:
    """The operations that `outputs` need, and those that write to a tensor or draw random numbers."""
    wanted = {value for value in outputs if value is not None}
    kept: list[Op] = []
    for op in reversed(ops):
        moves = op.func._schema.is_mutable or torch.Tag.nondeterministic_seeded in op.func.tags
        if moves or wanted.intersection(values_in(op.results)):
            kept.append(op)
            wanted.update(values_in((op.args, op.kwargs)))
    return kept[::-1]


def _map(structure: Any, change: Any) -> Any:
    if isinstance(structure, Tensor | Value):
        return change(structure)
    if isinstance(structure, list | tuple):
        return type(structure)([_map(item, change) for item in structure])
    if isinstance(structure, dict):
        return {key: _map(value, change) for key, value in structure.items()}
    return structure


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
