"""A stand-in for CUDA graphs, for machines without a GPU: what is recorded is the operations, by the tensors they name.

As CUDA does, it leaves undone what it records, keeps every number as it was, and reads and writes the same tensors in
every replay. Waiting for a value while it records spoils the recording, which shows at its end, also where the caller
made nothing of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from onecycle.engine import cuda_graphs as graphs
from onecycle.engine import engine
from onecycle.engine.graph_program import GraphProgram
from onecycle.engine.trace import all_in


class RecordedGraph:
    """In the place of torch.cuda.CUDAGraph."""

    replays = 0  # of all graphs

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.spoilt = False

    def replay(self) -> None:
        """Call every operation again, and write what it gives to where it was the first time."""
        RecordedGraph.replays += 1
        for func, args, kwargs, results in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(all_in(results, Tensor), all_in(again, Tensor), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Event:
    """In the place of torch.cuda.Event; `waiting` has those recorded and not waited for."""

    waiting = 0

    def record(self) -> None:
        """Count it."""
        Event.waiting += 1

    def synchronize(self) -> None:
        """Count it no longer."""
        Event.waiting -= 1


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self._graph = graph
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            self._graph.spoilt = True
            raise RuntimeError("operation not permitted when stream is capturing")
        if func._schema.is_mutable:
            for tensor in all_in((args, kwargs), Tensor):
                self._before.setdefault(id(tensor), (tensor, tensor.clone()))
        results = func(*args, **kwargs)
        self._graph.calls.append((func, args, kwargs, results))
        return results

    def undo(self) -> None:
        for tensor, value in self._before.values():
            tensor.copy_(value)


@contextmanager
def _recording(graph: RecordedGraph, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
    assert (pool, stream, capture_error_mode) == ("pool", "side stream", "thread_local")
    recorder = _Recorder(graph)
    try:
        with recorder:
            yield
    finally:
        recorder.undo()
        if graph.spoilt:
            raise RuntimeError("operation failed due to a previous error during capture")


def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[RecordedGraph]:
    """Let the fast engine run its programs as such graphs on the CPU."""
    cuda = {
        "CUDAGraph": RecordedGraph, "graph": _recording, "Event": Event, "Stream": lambda _: "side stream",
        "graph_pool_handle": lambda: "pool", "current_stream": SimpleNamespace, "set_stream": lambda _: None,
    }  # fmt: skip
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(engine, "_program_type", lambda _: GraphProgram)
    monkeypatch.setattr(graphs.Graph, "broken", None)
    monkeypatch.setattr(RecordedGraph, "replays", 0)
    monkeypatch.setattr(Event, "waiting", 0)
    graphs._stream_and_pool.cache_clear()
    return RecordedGraph
