"""Trace the tensor operations of one forward and backward pass while they run.

torch passes every operation below autograd to a dispatch mode, backward pass included. The trace holds the kernels that
eager training calls, in their order. Only autograd's own bookkeeping (`detach`, a transpose of a transpose) and unused
results are dropped.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor

from onecycle.core.dispatch import DispatchMode
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
        is_forward: Whether it was called before the backward pass.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: Any
    ndim: int = 0
    is_forward: bool = False


@dataclass
class Trace:
    """Operations on inputs and state.

    Attributes:
        ops: The operations, in order.
        state: Parameters, buffers and constants, named s0, s1, …
        outputs: The values that were asked for; None for those that do not exist.
        inputs: How many inputs there are, named x0, x1, …
        needs_grad_mode: Whether an operator looks at torch's grad mode, which is on in an eager step.
        draws: Whether an operator draws random numbers.
    """

    ops: list[Op]
    state: list[Tensor]
    outputs: list[Value | None]
    inputs: int
    needs_grad_mode: bool = False
    draws: bool = False

    @property
    def writes_inputs(self) -> bool:
        """Whether an operation may write to an input, or to a view of one."""
        return any(op.func._schema.is_mutable for op in self.ops)


class Tracer(DispatchMode):
    """Records the operations that run inside `with tracer:`.

    Args:
        inputs: The batch.
        known: Returns the tensors that existed before the step, which it may write to; None for all.

    Attributes:
        in_backward: To be set when the backward pass of the step begins.
        draws: Whether an operation drew random numbers so far.
    """

    def __init__(self, inputs: Sequence[Tensor], known: Callable[[], Iterable[Tensor]] | None = None) -> None:
        super().__init__()
        self.in_backward, self.draws, self._known = False, False, known
        self._aliases: set[int] = set()  # tensors that share their name with the one that they were detached from
        self._ops: list[Op] = []
        self._state: list[Tensor] = []
        self._inputs = len(inputs)
        self._seen: dict[int, Value] = {id(tensor): Value(f"x{i}") for i, tensor in enumerate(inputs)}
        self._watched: dict[int, ref[Tensor]] = {}  # to forget a tensor's name when it dies: its id is reused
        self._results: set[int] = {_storage(tensor) for tensor in inputs}  # memory that differs from batch to batch
        self._count = 0
        self._refusal: CannotCaptureError | None = None
        self._saved: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._versions = ExitStack()

    @contextmanager
    def restoring(self) -> Generator[None]:
        """Undo, when the block ends, what operations wrote to tensors that existed before."""
        try:
            with self._versions:
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
        if torch.Tag.inplace_view in func.tags and (id(args[0]) in self._aliases or not self.is_result(args[0])):
            raise self._refuse(f"changes the shape of a tensor in place ({func._opname})", "use the function without _")
        if func is torch.ops.aten.lift_fresh.default:  # of torch.tensor: a constant, which the step may write to
            func = torch.ops.aten.clone.default
        if not func._schema.returns and not func._schema.is_mutable:
            raise self._refuse(f"calls {func._opname}, which checks the values in a batch")
        self._save(func, args, kwargs)
        self.draws = self.draws or torch.Tag.nondeterministic_seeded in func.tags
        results = func(*args, **kwargs)
        if self.in_backward and func is torch.ops.aten.ones_like.default and not results.ndim:
            self._add_state(results)  # the start of the backward pass: a constant
            return results
        # before the results get their names: an operation that writes in place returns its argument
        op = Op(func, _map(args, self._name), _map(kwargs, self._name), None, is_forward=not self.in_backward)
        if func is torch.ops.aten.detach.default:
            self._remember(results, op.args[0])
            self._aliases.add(id(results))
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
            if storage.data_ptr() in self._results or storage.data_ptr() in self._saved:
                continue
            if self._known and storage.data_ptr() not in {_storage(known) for known in self._known()}:
                raise self._refuse("changes a tensor in place that is not known before the step", _CLONE)
            self._saved[storage.data_ptr()] = storage, storage.clone()
            self._versions.enter_context(_preserve_versions((tensor,)))

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
            raise CannotCaptureError("uses a tensor with a gradient that is not a parameter of the model", _CONSTANT)
        ops = _needed(self._ops, named)
        kept = {id(op) for op in ops}
        for op in self._ops:
            if op.is_forward and id(op) not in kept and op.func.overloadpacket in _MAY_RAISE:
                raise CannotCaptureError(f"calls {op.func._opname} without using its result")
        return Trace(ops, self._state, named, self._inputs, any(op.func in _READ_GRAD_MODE for op in ops), self.draws)

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
            self._aliases.discard(key)

        self._seen[key], self._watched[key] = value, ref(tensor, forget)


_WHERE = "torch.where, or a product with the mask, can be captured"
_CONSTANT = "train it as a parameter of the model, or use it without its gradient (detach)"
_CLONE = "clone it first"
# what torch's C++ code computes in another way if a dispatch mode is on, with other last bits: benchmarks/operators.py
_TWO_WAYS = {
    *(getattr(torch.ops.aten, name) for name in ("_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_lstsq")),
    *(getattr(torch.ops.aten, name) for name in ("cumprod", "linalg_householder_product", "ormqr")),
    *(torch.ops.aten.masked_fill.Tensor, torch.ops.aten.masked_fill_.Tensor),
}
# TorchScript drops them if nobody uses their result: some raise for values out of range, the first writes statistics
_MAY_RAISE = {
    *(getattr(torch.ops.aten, name) for name in ("native_batch_norm", "nll_loss_forward", "nll_loss2d_forward")),
    *(getattr(torch.ops.aten, name) for name in ("embedding", "gather", "index", "index_select", "take", "put")),
    *(getattr(torch.ops.aten, name) for name in ("scatter", "scatter_add", "index_add")),
}
_READ_GRAD_MODE = (torch.ops.aten.mkldnn_rnn_layer.default,)  # which keeps a workspace for the backward pass


@contextmanager
def restoring_memory(tensors: Iterable[Tensor]) -> Generator[None]:
    """Undo, when the block ends, what it wrote to the memory of the tensors, and how torch counted the writes."""
    tensors = list(tensors)
    storages = {_storage(tensor): tensor.untyped_storage() for tensor in tensors}
    contents = [(storage, storage.clone()) for storage in storages.values()]
    try:
        with _preserve_versions(tensors):
            yield
    finally:
        for storage, content in contents:
            storage.copy_(content)


def _preserve_versions(tensors: Iterable[Tensor]) -> AbstractContextManager[None]:
    """Set back, when the block ends, how often torch counted that the tensors were written to."""
    counted = tuple(tensor for tensor in tensors if not tensor.is_inference())
    return torch.autograd._unsafe_preserve_version_counter(counted)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage] -- there is no public one


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
    writes_to_results = any(
        op.func._schema.is_mutable and any(value.name[0] == "v" for value in values_in((op.args, op.kwargs)))
        for op in ops
    )

    def current(value: Value) -> Value:
        return replaced.get(value, value)

    for op in ops:
        op.args, op.kwargs = _map(op.args, current), _map(op.kwargs, current)
        source = made_by.get(op.args[0]) if op.func in (aten.t.default, aten.view.default) else None
        if source is not None and op.func is source.func is aten.t.default:
            replaced[op.results] = source.args[0]
        if source is None or writes_to_results or op.func is not aten.view.default:
            pass
        elif _sums_rows(source) and len(op.args[1]) == 1:
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
        if _has_effect(op.func) or needed_values.intersection(values_in(op.results)):
            needed.append(op)
            needed_values.update(values_in((op.args, op.kwargs)))
    return needed[::-1]


def _has_effect(func: Any) -> bool:
    """Whether an operator writes to a tensor or draws random numbers."""
    return func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags


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
