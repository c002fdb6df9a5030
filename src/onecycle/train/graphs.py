"""Runs of steps as CUDA graphs: the GPU is given all kernels of a run at once, and nothing is called from Python.

A graph is recorded from the program that would run otherwise (train/program.py), one for each number of steps. It
reads and writes the same places in memory for ever: rows and numbers are copied to places of its own before a replay,
everything else has to be where it was.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the documented way in, private by name only

from onecycle.core.device import borrowed_generators
from onecycle.train.program import Function
from onecycle.train.trace import all_in

_TOLERANCE = 0.01  # of the way that a tensor goes in a run


class GraphedRun:
    """A program's `run` with the same arguments and result, replayed from graphs; `numbers` reach it as tensors.

    The first run of each length is made both ways, and what `run` itself does is kept. Where the two differ, or nothing
    can be recorded, `refused` says why, and `run` itself is called from then on.
    """

    def __init__(self, run: Function) -> None:
        self._run = run
        self._graphs: dict[int, Graph] = {}
        self._places: list[int] = []
        self.refused: str | None = None

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
        table, changed = torch.tensor(numbers, dtype=torch.float32), [*state, *all_in(groups, Tensor)]

        def run(rows: Tensor, table: Tensor) -> Tensor:
            return self._run(data, rows, bs, state, [row.unbind() for row in table.unbind()], groups)

        # not in inference mode: what a graph's random numbers start from would be a tensor for that mode alone
        with torch.cuda.device_of(rows), torch.inference_mode(False), torch.no_grad():
            places = [tensor.data_ptr() for tensor in (*data, *changed)]
            if places != self._places:
                self._graphs, self._places = {}, places
            if graph := self._graphs.get(len(numbers)):
                return graph.replay(rows, table)
            if self.refused is not None:
                return run(rows, table.to(rows.device))
            return self._first(run, rows, table, data, changed)

    def _first(
        self, run: Callable[..., Tensor], rows: Tensor, table: Tensor, data: Sequence[Tensor], changed: list[Tensor]
    ) -> Tensor:
        """`run` itself, beside a graph of it that is kept where it does the same."""
        before = [tensor.clone() for tensor in changed]
        graph, found = None, list[Tensor]()
        try:
            with borrowed_generators(rows.device):
                graph = Graph(run, rows, table.to(rows.device), (*data, *changed))
                found = [tensor.clone() for tensor in (graph.replay(rows, table), *changed)]
        except RuntimeError as error:
            self.refused = f"a step cannot be recorded ({str(error).strip().splitlines()[0]})"
        finally:
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        losses = run(rows, table.to(rows.device))
        if graph is not None and _agree(found, [losses, *changed], [torch.zeros_like(losses), *before]):
            self._graphs[len(table)] = graph
        else:
            self.refused = self.refused or "the recorded steps give other numbers"
        return losses


class Graph:
    """`run(rows, table)` as a CUDA graph. Raises RuntimeError where it cannot be recorded; it is not run."""

    def __init__(self, run: Callable[..., Tensor], rows: Tensor, table: Tensor, others: Sequence[Tensor]) -> None:
        self._rows, self._table = rows.clone(), table.clone()
        self._others = others  # held, so that nothing else takes their memory
        self._graph = torch.cuda.CUDAGraph()
        # a thread may be writing a checkpoint: only what this one calls counts
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"), _AllOn(rows.device):
            self._losses = run(self._rows, self._table)

    def replay(self, rows: Tensor, table: Tensor) -> Tensor:
        """Run it on other rows and numbers of the same shapes."""
        self._rows.copy_(rows)
        self._table.copy_(table, non_blocking=True)
        self._graph.replay()
        return self._losses


class _AllOn(TorchDispatchMode):
    """Refuses operations with tensors of another device: a graph would not repeat them."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch.compile is imported for nothing

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in all_in((args, kwargs, found), Tensor):
            if tensor.device != self._device:
                raise RuntimeError(f"{func} works on the {tensor.device}")
        return found


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    """Whether each tensor found is as expected, within a hundredth of the way it went. Waits for the device.

    Not each of its numbers: where a gradient is next to nothing, Adam makes whole steps of a rounding error.
    """
    norms = [
        torch.stack([part.double().norm() for part in (a.double() - b, b.double() - old, b)])
        for a, b, old in zip(found, expected, before, strict=True)
    ]
    off, way, size = torch.stack(norms).unbind(1)
    return bool((off <= _TOLERANCE * way + 1e-6 * size).all())
