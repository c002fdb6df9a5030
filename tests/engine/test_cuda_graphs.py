"""Runs as graphs train as eager steps do. On the CPU, by a stand-in for CUDA's graphs; test_graphs_gpu.py has the real ones."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.optim import SGD, AdamW

import cuda_stand_in
from conftest import Everything, Net, seeded, toy_arrays
from cuda_stand_in import RecordedGraph, stand_in
from onecycle import DataBunch, Learner, accuracy
from onecycle.engine import cuda_graphs as graphs
from onecycle.engine.capture import CapturedStep
from onecycle.engine.graph_program import STEPS, GraphProgram
from onecycle.engine.optimizer_program import program_of
from onecycle.engine.program import as_python, run_source
from onecycle.engine.trace import CannotCaptureError, all_in


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> type[RecordedGraph]:
    return stand_in(monkeypatch)


def data() -> DataBunch:
    return DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=4, seed=3)


def fitted(engine: str, model: nn.Module, split: bool = False, **options: Any) -> Learner:
    learn = Learner(data(), seeded(model), engine=engine, **{"metrics": accuracy, "silent": True, **options})
    if split:
        learn.split(model.lin2)
    learn.fit_one_cycle(2, slice(1e-3, 1e-2))
    return learn


def assert_close(found: Learner, expected: Learner) -> None:
    assert found.recorder.losses == pytest.approx(expected.recorder.losses, rel=1e-3, abs=1e-5)
    assert found.recorder.val_losses == pytest.approx(expected.recorder.val_losses, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"true_wd": False, "bn_wd": False, "wd": 0.1},
        {"wd": 0.1, "split": True},
        {"opt_func": partial(torch.optim.Adam, eps=1e-3)},
        {"opt_func": partial(AdamW, betas=(0.5, 0.9))},
        {"opt_func": SGD, "split": True, "wd": 0.1},
        {"opt_func": partial(SGD, momentum=0.9), "true_wd": False, "wd": 0.1},
        {"opt_func": partial(SGD, momentum=0.9, nesterov=True)},
        {"opt_func": partial(SGD, momentum=0.9, dampening=0.5)},
    ],
)
def test_graphs_train_as_eager_steps_do(options: dict[str, Any], graph: type[RecordedGraph]):
    fast = fitted("fast", Net(), **options)
    assert fast.engine.captured is not None
    assert fast.engine.captured.graph_fallback_reason() is None
    assert graph.replays > 2 * (50 - STEPS) - 5
    assert_close(fast, fitted("eager", Net(), **options))


def test_dropout_and_norms_go_on_in_a_graph(graph: type[RecordedGraph]):
    models = Everything(), Everything()
    for model in models:
        model.unused.requires_grad_(False)  # Adam's kernel is called directly where all parameters have gradients
    fast, eager = (
        Learner(data(), seeded(model), engine=engine, metrics=accuracy, silent=True)
        for model, engine in zip(models, ("fast", "eager"), strict=True)
    )
    for learn in (fast, eager):
        learn.fit_one_cycle(1, 1e-3)
    assert graph.replays
    assert_close(fast, eager)
    assert torch.equal(fast.model.bn.num_batches_tracked, eager.model.bn.num_batches_tracked)
    assert torch.allclose(fast.model.bn.running_var, eager.model.bn.running_var, rtol=1e-3)


def test_a_long_run_gives_the_bits_of_short_ones(graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch):
    """So that a fit which is resumed in the middle of a run is the same fit."""
    long = fitted("fast", Net())
    monkeypatch.setattr("onecycle.engine.graph_program.STEPS", 7)
    assert fitted("fast", Net()).recorder.losses == long.recorder.losses


def test_a_graph_is_recorded_once_for_each_length(monkeypatch: pytest.MonkeyPatch, graph: type[RecordedGraph]):
    recorded: list[int] = []
    init = graphs.Graph.__init__
    monkeypatch.setattr(
        graphs.Graph, "__init__", lambda self, *given: recorded.append(len(given[2])) or init(self, *given)
    )
    learn = Learner(data(), Net(), engine="fast", silent=True)
    learn.fit_one_cycle(3, 1e-2)
    assert recorded == [1, STEPS]
    learn.fit(1, 1e-3)
    assert recorded == [1, STEPS]
    learn.opt = learn._make_opt()  # its moments are in another place
    learn.fit(1, 1e-3)
    assert sorted(recorded) == [1, 1, STEPS, STEPS]


def test_what_cannot_be_recorded_goes_on_without_graphs(
    graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs.Graph, "__init__", broken)
    fast, eager = fitted("fast", Net(), silent=False), fitted("eager", Net())
    assert_close(fast, eager)
    assert not graph.replays
    line = (
        "engine: no CUDA graphs, because a step cannot be recorded (CUDA error: operation not permitted when stream is"
    )
    assert capsys.readouterr().out.count(line) == 1


def test_waiting_for_a_value_spoils_a_recording_and_nothing_is_recorded_after_it(
    graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch
):
    """Without its overload named, Adam's kernel is tried with a number for the rate first."""
    add, init, tries = GraphProgram.add_adam, graphs.Graph.__init__, list[int]()

    def vague(self: GraphProgram, *given: Any) -> None:
        add(self, *given)
        self.lines = [text.replace("_fused_adam_.tensor_lr", "_fused_adam_") for text in self.lines]

    monkeypatch.setattr(GraphProgram, "add_adam", vague)
    monkeypatch.setattr(graphs, "_synchronizes", lambda *_: False)  # else it would be refused before CUDA sees it
    monkeypatch.setattr(graphs.Graph, "__init__", lambda *given: tries.append(1) or init(*given))
    for _ in range(2):
        fast = fitted("fast", Net())
        assert fast.engine.captured is not None
        assert "previous error during capture" in str(fast.engine.captured.graph_fallback_reason())
        assert_close(fast, fitted("eager", Net()))
    assert len(tries) == 1
    assert not graph.replays


def test_an_empty_graph_is_not_used(graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch):
    """What is recorded on another device's stream runs at once, and its replay does nothing."""
    monkeypatch.setattr(cuda_stand_in._Recorder, "undo", lambda _: None)
    monkeypatch.setattr(RecordedGraph, "replay", lambda _: None)
    fast = fitted("fast", Net())
    assert fast.engine.captured is not None
    assert fast.engine.captured.graph_fallback_reason() == "the recorded steps give other numbers"
    assert_close(fast, fitted("eager", Net()))


@pytest.mark.parametrize("at", [1, 2])
def test_no_memory_for_the_check_is_no_end(at: int, graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch):
    copies, calls = graphs._copies, list[int]()

    def full(tensors: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return copies(tensors)

    monkeypatch.setattr(graphs, "_copies", full)
    fast = fitted("fast", Net())
    assert fast.engine.captured is not None
    assert "memory" in str(fast.engine.captured.graph_fallback_reason())
    assert_close(fast, fitted("eager", Net()))


def test_the_host_is_never_more_than_a_run_ahead(graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch):
    most: list[int] = []
    replay = RecordedGraph.replay
    monkeypatch.setattr(RecordedGraph, "replay", lambda self: most.append(cuda_stand_in.Event.waiting) or replay(self))
    fitted("fast", Net())
    assert max(most) == 1


def test_the_graphs_of_an_earlier_program_are_let_go(graph: type[RecordedGraph]):
    learn = Learner(data(), Net(), engine="fast", true_wd=False, silent=True)
    for wd in (0.1, 0.2, 0.3):  # L2 is a part of the program
        learn.fit(1, 1e-3, wd=wd)
        assert learn.engine.captured is not None
        assert len(learn.engine.captured._runs) == 1


@pytest.mark.parametrize("mask", [torch.tensor([True, False]), torch.tensor([0])])
def test_a_mask_is_not_recorded(mask: torch.Tensor):
    x, refused = torch.ones(2), mask.dtype is torch.bool
    with graphs._RefuseUnrepeatable(x.device):
        for write in (lambda: x[mask], lambda: x.index_put_((mask,), torch.zeros(()))):
            if refused:
                with pytest.raises(CannotCaptureError, match="waits for values"):
                    write()
            else:
                write()


def test_a_graph_that_gives_other_numbers_is_not_used(graph: type[RecordedGraph], monkeypatch: pytest.MonkeyPatch):
    replay = RecordedGraph.replay

    def twice(self: RecordedGraph) -> None:
        replay(self)
        replay(self)

    monkeypatch.setattr(RecordedGraph, "replay", twice)
    fast = fitted("fast", Net())
    assert fast.engine.captured is not None
    assert fast.engine.captured.graph_fallback_reason() == "the recorded steps give other numbers"
    assert_close(fast, fitted("eager", Net()))


def test_a_step_that_uses_the_cpu_is_not_recorded():
    with (
        graphs._RefuseUnrepeatable(torch.device("meta")),
        pytest.raises(CannotCaptureError, match=r"aten.ones.default works on the cpu"),
    ):
        torch.ones(2)


class OnTheGpu(graphs._RefuseUnrepeatable):
    """With Adam's kernel, which torch does not know how to call without data, left out."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._fused_adam_.tensor_lr:
            assert {tensor.device.type for tensor in all_in((args, kwargs), torch.Tensor)} == {"cuda"}
            return None
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("options", [{}, {"opt_func": partial(SGD, momentum=0.9, nesterov=True), "split": True}])
def test_a_run_needs_nothing_from_the_cpu(options: dict[str, Any], graph: type[RecordedGraph]):
    """The program on tensors that say they are on a GPU: mixed devices and waiting for a value are errors there."""
    learn = fitted("fast", Net(), **options)
    captured = learn.engine.captured
    assert isinstance(captured, CapturedStep)
    loader = learn.data.train_dl
    program = program_of(GraphProgram, learn.opt, captured.trained, captured.has_gradient)
    assert program is not None
    numbers = program.numbers([([1e-2] * 2, 0.9)] * 3, 0.9)
    run = as_python(run_source(captured.trace, ["", ""], program.lines), "run")
    with FakeTensorMode(), torch.no_grad():

        def there(given: Any) -> Any:
            if isinstance(given, list):
                return [there(item) for item in given]
            return torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device="cuda")

        table, rows = there(torch.tensor(numbers)), there(torch.zeros(12, dtype=torch.long))
        tensors, state, groups = there(loader.tensors), there(captured.trace.state), there(program.groups)
        with OnTheGpu(torch.device("cuda:0")):
            losses = run(tensors, rows, 4, state, [row.unbind() for row in table.unbind()], groups)
    assert losses.device.type == "cuda"
    assert losses.shape == (3,)
