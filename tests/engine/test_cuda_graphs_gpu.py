"""CUDA graphs train as eager steps do; skipped where there is no GPU."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import SGD

from conftest import Everything, Net, seeded, toy_arrays
from onecycle import DataBunch, Learner, accuracy
from onecycle.engine import cuda_graphs as graphs
from onecycle.engine.graph_program import STEPS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def fitted(engine: str, model: torch.nn.Module, epochs: int = 2, lr: float = 1e-2, **options: Any) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=4, seed=3, device="cuda")
    learn = Learner(data, seeded(model), engine=engine, metrics=accuracy, silent=True, **options)
    learn.fit_one_cycle(epochs, lr)
    return learn


def assert_close(found: Learner, expected: Learner) -> None:
    assert found.engine.captured is not None
    assert found.engine.captured.graph_fallback_reason() is None
    assert found.recorder.losses == pytest.approx(expected.recorder.losses, rel=1e-3, abs=1e-4)
    assert found.recorder.val_losses == pytest.approx(expected.recorder.val_losses, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"true_wd": False, "wd": 0.1},
        {"opt_func": partial(SGD, momentum=0.9), "wd": 0.1},
        {"opt_func": partial(SGD, momentum=0.9, nesterov=True)},
        {"precision": "bf16"},
    ],
)
def test_graphs_train_as_eager_steps_do(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    lengths: list[int] = []
    replay = graphs.Graph.replay
    monkeypatch.setattr(
        graphs.Graph, "replay", lambda self, rows, table: lengths.append(len(table)) or replay(self, rows, table)
    )
    fast = fitted("fast", Net(), **options)
    assert STEPS in lengths[1:]
    assert_close(fast, fitted("eager", Net(), **options))


def test_dropout_draws_the_same_numbers_in_a_graph():
    models = Everything(), Everything()
    for model in models:
        model.unused.requires_grad_(False)
    fast, eager = (fitted(engine, model, 1, 1e-3) for engine, model in zip(("fast", "eager"), models, strict=True))
    assert_close(fast, eager)


def test_replaying_never_waits_for_the_device():
    learn = fitted("fast", Net())
    replay = graphs.Graph.replay

    def watched(*given: Any) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return replay(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs.Graph, "replay", watched)
        learn.fit(1, 1e-3)
