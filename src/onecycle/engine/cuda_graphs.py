"""Replay runs of steps as CUDA graphs: the GPU gets all kernels of a run at once, with no Python between them.

A graph is recorded from the program that would run otherwise (engine/program.py), one graph for each number of steps.
A graph reads and writes fixed addresses: rows and numbers are copied into its own buffers before a replay, and
everything else must stay where it was.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from onecycle.core.device import get_rng_states, preserve_rng_state, set_rng_states
from onecycle.core.dispatch import DispatchMode
from onecycle.engine.program import Function
from onecycle.engine.trace import CannotCaptureError, all_in, depends_on_values, has_mask

# how far a replay may be from the run it was recorded from, relative to the loss, and to the change of the weights
_LOSS_RTOL, _UPDATE_RTOL = 0.01, 0.1


class GraphedRun:
    """A program's `run`, replayed from graphs. Takes the same arguments; `numbers` reach the program as tensors.

    The first run of each length is done both directly and as a graph; the result of the direct run stands. If the two
    differ, or recording fails, the program is called directly from then on.

    Attributes:
        fallback_reason: Why no graphs are used, or None.
    """

    def __init__(self, run: Function) -> None:
        self._run = run
        self._graphs: dict[int, Graph] = {}
        self._addresses: list[int] = []
        self._last_event: Any = None  # recorded after the last run
        self.fallback_reason: str | None = Graph.broken

    def __call__(
        self,
        data: Sequence[Tensor],
        rows: Tensor,
        bs: int,
        state: Sequence[Tensor],
        numbers: list[list[float]],
        groups: list[list[list[Tensor]]],
    ) -> Tensor:
        """Train, and return the losses, in a tensor that the next call may overwrite."""
        table = torch.tensor(numbers, dtype=torch.float32)

        def run(rows: Tensor, table: Tensor) -> Tensor:
            return self._run(data, rows, bs, state, [row.unbind() for row in table.unbind()], groups)

        # not in inference mode: the state of a graph's random numbers would be a tensor of that mode alone
        with torch.cuda.device_of(rows), torch.inference_mode(False), torch.no_grad():
            fixed = [*data, *state, *all_in(groups, Tensor)]
            addresses = [tensor.data_ptr() for tensor in fixed]
            if addresses != self._addresses:
                self._graphs, self._addresses = {}, addresses
            if graph := self._graphs.get(len(numbers)):
                losses = graph.replay(rows, table)
            elif self.fallback_reason is not None:
                losses = run(rows, table.to(rows.device))
            else:
                losses = self._run_and_record(run, rows, table, fixed[len(data) :], _by_role(groups), fixed)
            self._wait_for_last_run()
        return losses

    def _run_and_record(
        self,
        run: Callable[..., Tensor],
        rows: Tensor,
        table: Tensor,
        changed: list[Tensor],
        roles: list[list[Tensor]],
        fixed: list[Tensor],
    ) -> Tensor:
        """Run directly, then record and replay a graph from the same weights; use it from now on if it agrees."""
        numbers, device = table.to(rows.device), rows.device
        try:
            before, noise = _copies(changed), get_rng_states(device)
        except torch.OutOfMemoryError:
            self._refuse("there is not enough memory to check them")
            return run(rows, numbers)
        losses = run(rows, numbers)  # also warms up
        try:
            with _restoring(changed) as after, preserve_rng_state(device):
                _write(changed, before)
                graph = Graph(run, rows, numbers, fixed)
                _write(changed, before)  # if it had run while being recorded, a replay that does nothing would pass
                set_rng_states(noise, device)
                agrees = _within_tolerance(
                    [graph.replay(rows, table)], [losses], [torch.zeros_like(losses)], _LOSS_RTOL
                )
                for role in roles:
                    keys = [_storage_key(tensor) for tensor in role]
                    agrees &= _within_tolerance(role, [after[k] for k in keys], [before[k] for k in keys], _UPDATE_RTOL)
        except (CannotCaptureError, RuntimeError) as error:
            self._refuse(f"a step cannot be recorded ({_cause(error)})")
        else:
            if agrees:
                self._graphs[len(table)] = graph
            else:
                self._refuse("the recorded steps give other numbers")
        return losses

    def _refuse(self, reason: str) -> None:
        self.fallback_reason = reason
        self._graphs.clear()

    def _wait_for_last_run(self) -> None:
        """Wait for the run before this one, so that the display and Ctrl-C are never many runs late."""
        previous, self._last_event = self._last_event, torch.cuda.Event()
        self._last_event.record()
        if previous is not None:
            previous.synchronize()


class Graph:
    """`run(rows, table)` as a CUDA graph. Creating it records the run, without executing it.

    Raises CannotCaptureError for an operation that a graph could not repeat, and RuntimeError if CUDA refuses. After
    the latter torch may still believe that it is recording, so nothing is recorded any more in this process.

    Attributes:
        broken: Why nothing is recorded any more, or None.
    """

    broken: str | None = None

    def __init__(self, run: Callable[..., Tensor], rows: Tensor, table: Tensor, fixed: list[Tensor]) -> None:
        self._rows, self._table = rows.clone(), table.clone()
        self._fixed = fixed  # keeps their memory from being reused
        self._graph = torch.cuda.CUDAGraph()
        stream, pool = _stream_and_pool(rows.device)
        current = torch.cuda.current_stream()
        # thread_local: another thread may be writing a checkpoint
        recording = torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local")
        try:
            with recording, _RefuseUnrepeatable(rows.device):
                self._losses = run(self._rows, self._table)
        except RuntimeError as error:
            Graph.broken = f"a step could not be recorded ({_cause(error)})"
            raise
        finally:
            torch.cuda.set_stream(current)  # torch leaves the side stream set if CUDA refuses

    def replay(self, rows: Tensor, table: Tensor) -> Tensor:
        """Replay with other rows and numbers of the same shapes."""
        self._rows.copy_(rows)
        self._table.copy_(table, non_blocking=True)
        self._graph.replay()
        return self._losses


@cache
def _stream_and_pool(device: torch.device) -> tuple[Any, Any]:
    """The stream to record on, and the memory pool that graphs share, since they run one after another."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()


class _RefuseUnrepeatable(DispatchMode):
    """Raises CannotCaptureError for operations that a graph would not repeat, before CUDA does."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._check(func, (args, kwargs))
        if _synchronizes(func, args):
            raise CannotCaptureError(f"{func} waits for values")
        results = func(*args, **kwargs)
        self._check(func, results)
        return results

    def _check(self, func: Any, structure: Any) -> None:
        for tensor in all_in(structure, Tensor):
            if tensor.device != self._device:
                raise CannotCaptureError(f"{func} works on the {tensor.device}")


def _synchronizes(func: Any, args: Any) -> bool:
    aten = torch.ops.aten
    if func.overloadpacket in (aten.index_put, aten.index_put_, aten._index_put_impl_):
        return has_mask(args[1])
    return depends_on_values(func, args)


StorageKey = tuple[int, int]


def _storage_key(tensor: Tensor) -> StorageKey:
    return tensor.data_ptr(), tensor.numel()


def _copies(tensors: Sequence[Tensor]) -> dict[StorageKey, Tensor]:
    """Copy the tensors, once for each address."""
    return {key: tensor.clone() for key, tensor in {_storage_key(tensor): tensor for tensor in tensors}.items()}


def _write(tensors: Sequence[Tensor], values: dict[StorageKey, Tensor]) -> None:
    for tensor in tensors:
        tensor.copy_(values[_storage_key(tensor)])


@contextmanager
def _restoring(tensors: Sequence[Tensor]) -> Generator[dict[StorageKey, Tensor]]:
    """Restore the tensors on exit; yields copies of their values."""
    values = _copies(tensors)
    try:
        yield values
    finally:
        _write(tensors, values)


def _by_role(groups: list[list[list[Tensor]]]) -> list[list[Tensor]]:
    """Regroup tensors by role: all parameters, then all tensors of each kind of moment."""
    return [[tensor for tensors in role for tensor in tensors] for role in zip(*groups, strict=True)]


def _within_tolerance(
    actual: Sequence[Tensor], expected: Sequence[Tensor], before: Sequence[Tensor], rtol: float
) -> bool:
    """Whether `actual` is near `expected`, relative to how far that moved from `before`. Waits for the device.

    All tensors are compared together: if a gradient is only rounding noise, as for a bias before BatchNorm, Adam makes
    full steps of it.
    """

    def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        norms = [torch.linalg.vector_norm((x - y).float()) for x, y in zip(a, b, strict=True)]
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())

    return bool(distance(actual, expected) <= rtol * distance(expected, before) + 1e-12)


def _cause(error: BaseException) -> str:
    """The first line of the first error in the chain, which says most."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
