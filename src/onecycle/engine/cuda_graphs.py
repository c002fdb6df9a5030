"""Runs of steps as CUDA graphs: the GPU is given all kernels of a run at once, and nothing is called from Python.

A graph is recorded from the program that would run otherwise (train/program.py), one for each number of steps. It
reads and writes the same places in memory for ever: rows and numbers are copied to places of its own before a replay,
everything else has to be where it was.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the documented way in, private by name only

from onecycle.core.device import get_rng_states, preserve_rng_state, set_rng_states
from onecycle.engine.program import Function
from onecycle.engine.trace import CannotCaptureError, all_in, depends_on_values, has_mask

_OFF_LOSS, _OFF_WAY = 0.01, 0.1  # what may lie between two ways of a run: of a loss, of the way that weights go


class GraphedRun:
    """A program's `run` with the same arguments and result, replayed from graphs; `numbers` reach it as tensors.

    The first run of each length is made both ways, and what `run` itself does is kept. Where the two differ, or nothing
    can be recorded, `refused` says why, and `run` itself is called from then on.
    """

    def __init__(self, run: Function) -> None:
        self._run = run
        self._graphs: dict[int, Graph] = {}
        self._places: list[int] = []
        self._under_way: Any = None  # the event after the last run
        self.refused: str | None = Graph.broken

    def __call__(
        self,
        data: Sequence[Tensor],
        rows: Tensor,
        bs: int,
        state: Sequence[Tensor],
        numbers: list[list[float]],
        groups: list[list[list[Tensor]]],
    ) -> Tensor:
        """Train, and give the losses: a tensor that the next call may write to."""
        table = torch.tensor(numbers, dtype=torch.float32)

        def run(rows: Tensor, table: Tensor) -> Tensor:
            return self._run(data, rows, bs, state, [row.unbind() for row in table.unbind()], groups)

        # not in inference mode: what a graph's random numbers start from would be a tensor for that mode alone
        with torch.cuda.device_of(rows), torch.inference_mode(False), torch.no_grad():
            others = [*data, *state, *all_in(groups, Tensor)]
            places = [tensor.data_ptr() for tensor in others]
            if places != self._places:
                self._graphs, self._places = {}, places
            if graph := self._graphs.get(len(numbers)):
                losses = graph.replay(rows, table)
            elif self.refused is not None:
                losses = run(rows, table.to(rows.device))
            else:
                losses = self._first(run, rows, table, others[len(data) :], _by_role(groups), others)
            self._wait_for_the_last()
        return losses

    def _first(
        self,
        run: Callable[..., Tensor],
        rows: Tensor,
        table: Tensor,
        changed: list[Tensor],
        roles: list[list[Tensor]],
        others: list[Tensor],
    ) -> Tensor:
        """`run` itself, then a graph of it from the same weights, which is kept where it does the same."""
        numbers, device = table.to(rows.device), rows.device
        try:
            before, noise = _copies(changed), get_rng_states(device)
        except torch.OutOfMemoryError:
            self._refuse("there is no memory to check them")
            return run(rows, numbers)
        losses = run(rows, numbers)  # warms up, too
        try:
            with _kept(changed) as after, preserve_rng_state(device):
                _put(changed, before)
                graph = Graph(run, rows, numbers, others)
                _put(changed, before)  # had it run while it was recorded, a replay that does nothing would pass
                set_rng_states(noise, device)
                same = _near([graph.replay(rows, table)], [losses], [torch.zeros_like(losses)], _OFF_LOSS)
                for role in roles:
                    places = [_place(tensor) for tensor in role]
                    same &= _near(role, [after[p] for p in places], [before[p] for p in places], _OFF_WAY)
        except (CannotCaptureError, RuntimeError) as error:
            self._refuse(f"a step cannot be recorded ({_cause(error)})")
        else:
            if same:
                self._graphs[len(table)] = graph
            else:
                self._refuse("the recorded steps give other numbers")
        return losses

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self._graphs.clear()

    def _wait_for_the_last(self) -> None:
        """Wait for the run before this one, so that the display and Ctrl-C are never many runs late."""
        before, self._under_way = self._under_way, torch.cuda.Event()
        self._under_way.record()
        if before is not None:
            before.synchronize()


class Graph:
    """`run(rows, table)` as a CUDA graph. It is recorded, not run.

    Raises CannotCaptureError for what a graph could not repeat, and RuntimeError where CUDA refuses; then `broken` says
    why nothing is recorded any more in this process, in which torch may still hold itself for recording.
    """

    broken: str | None = None

    def __init__(self, run: Callable[..., Tensor], rows: Tensor, table: Tensor, others: list[Tensor]) -> None:
        self._rows, self._table = rows.clone(), table.clone()
        self._others = others  # held, so that nothing else takes their memory
        self._graph = torch.cuda.CUDAGraph()
        stream, pool = _side(rows.device)
        current = torch.cuda.current_stream()
        # a thread may be writing a checkpoint: only what this one calls counts
        recording = torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local")
        try:
            with recording, _OnlyRepeatable(rows.device):
                self._losses = run(self._rows, self._table)
        except RuntimeError as error:
            Graph.broken = f"a step could not be recorded ({_cause(error)})"
            raise
        finally:
            torch.cuda.set_stream(current)  # torch's own way out leaves the side stream where CUDA refuses

    def replay(self, rows: Tensor, table: Tensor) -> Tensor:
        """Run it on other rows and numbers of the same shapes."""
        self._rows.copy_(rows)
        self._table.copy_(table, non_blocking=True)
        self._graph.replay()
        return self._losses


@cache
def _side(device: torch.device) -> tuple[Any, Any]:
    """The stream to record on, and the memory that graphs share: they run one after another."""
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()


class _OnlyRepeatable(TorchDispatchMode):
    """Refuses operations that a graph would not repeat, before CUDA does."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch.compile is imported for nothing

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._check(func, (args, kwargs))
        if _waits(func, args):
            raise CannotCaptureError(f"{func} waits for values")
        found = func(*args, **kwargs)
        self._check(func, found)
        return found

    def _check(self, func: Any, structure: Any) -> None:
        for tensor in all_in(structure, Tensor):
            if tensor.device != self._device:
                raise CannotCaptureError(f"{func} works on the {tensor.device}")


def _waits(func: Any, args: Any) -> bool:
    aten = torch.ops.aten
    if func.overloadpacket in (aten.index_put, aten.index_put_, aten._index_put_impl_):
        return has_mask(args[1])
    return depends_on_values(func, args)


Place = tuple[int, int]


def _place(tensor: Tensor) -> Place:
    return tensor.data_ptr(), tensor.numel()


def _copies(tensors: Sequence[Tensor]) -> dict[Place, Tensor]:
    """Of each place in memory one, however many of the tensors are there."""
    return {place: tensor.clone() for place, tensor in {_place(tensor): tensor for tensor in tensors}.items()}


def _put(tensors: Sequence[Tensor], values: dict[Place, Tensor]) -> None:
    for tensor in tensors:
        tensor.copy_(values[_place(tensor)])


@contextmanager
def _kept(tensors: Sequence[Tensor]) -> Generator[dict[Place, Tensor]]:
    """Whatever the block does, put the tensors back, whose values it is given."""
    values = _copies(tensors)
    try:
        yield values
    finally:
        _put(tensors, values)


def _by_role(groups: list[list[list[Tensor]]]) -> list[list[Tensor]]:
    """All parameters, then all of each kind of moments."""
    return [[tensor for tensors in role for tensor in tensors] for role in zip(*groups, strict=True)]


def _near(found: Sequence[Tensor], expected: Sequence[Tensor], before: Sequence[Tensor], most: float) -> bool:
    """Whether what was found lies near what was expected, for the way it went. Waits for the device.

    All tensors together: where a gradient is nothing but rounding, as that of a bias before BatchNorm, Adam makes whole
    steps of it.
    """

    def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        norms = [torch.linalg.vector_norm((x - y).float()) for x, y in zip(a, b, strict=True)]
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())

    return bool(distance(found, expected) <= most * distance(expected, before) + 1e-12)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong first; what comes after it says less."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
