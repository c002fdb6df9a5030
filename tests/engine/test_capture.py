"""What a captured step treats as constant, when it is captured again, and what cannot be captured."""

from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from conftest import Everything, Net, seeded, toy_arrays
from engine.helpers import assert_agree, fitted
from onecycle import Callback, DataBunch, GradientClip, Learner, accuracy
from onecycle.engine.capture import CapturedStep
from onecycle.train.step import Objective


def test_it_captures_once(captures: list[int]):
    learn = fitted("fast", Net())
    learn.fit(3, 1e-3)
    learn.lr_find()
    learn.fit_one_cycle(1, 1e-3)
    assert len(captures) == 1


def test_it_captures_again_when_the_model_changes(captures: list[int], toy: DataBunch):
    learn = Learner(toy, seeded(Net()), engine="fast", silent=True)
    learn.split(learn.model.lin2)
    learn.freeze()
    before = learn.model.lin1.weight.clone()
    learn.fit(2, 1e-2)
    assert torch.equal(learn.model.lin1.weight, before)
    learn.unfreeze()
    learn.fit(1, 1e-2)
    assert not torch.equal(learn.model.lin1.weight, before)
    assert len(captures) == 2
    learn.loss_func = nn.MultiMarginLoss()
    learn.fit(1, 1e-2)
    assert len(captures) == 3


def test_capturing_leaves_no_trace(toy: DataBunch):
    model = seeded(Everything()).train()
    before = [value.clone() for value in model.state_dict().values()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    CapturedStep(model, Objective(nn.CrossEntropyLoss()), *toy.one_batch())
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_without_torchscript_the_generated_python_does_the_same(monkeypatch: pytest.MonkeyPatch):
    eager = fitted("eager", Everything())
    monkeypatch.delattr(torch.jit, "CompilationUnit")
    assert_agree(eager, fitted("fast", Everything()))


GLOBAL = 0.0


class Reads(Net):
    """Its forward pass reads a list, a settings object and a global."""

    def __init__(self) -> None:
        super().__init__()
        self.scales, self.settings = [1.0, {"more": 2.0}], SimpleNamespace(shift=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * self.scales[0] + self.settings.shift + GLOBAL)


@pytest.mark.parametrize("what", ["list", "inner", "object", "global"])
def test_it_captures_again_when_what_the_forward_pass_reads_changes(
    what: str, captures: list[int], toy: DataBunch, monkeypatch: pytest.MonkeyPatch
):
    def change(model: Any) -> None:
        if what == "list":
            model.scales[0] = 3.0
        elif what == "inner":
            model.scales[1]["more"] = 3.0
        elif what == "object":
            model.settings.shift = 3.0
        else:
            monkeypatch.setitem(Reads.forward.__globals__, "GLOBAL", 3.0)

    learners = [Learner(toy, seeded(Reads()), engine=engine, silent=True) for engine in ("fast", "eager")]
    for learn in learners:
        monkeypatch.setitem(Reads.forward.__globals__, "GLOBAL", 0.0)
        learn.fit(1, 1e-2)
        change(learn.model)
        learn.fit(1, 1e-2)
    assert len(captures) == 2
    assert learners[0].recorder.losses == pytest.approx(learners[1].recorder.losses, rel=1e-4)


def test_a_forward_pass_that_appends_to_a_list_stays_eager(toy: DataBunch):
    class Appends(Net):
        seen: ClassVar[list[int]] = []

        def __init__(self) -> None:
            super().__init__()
            self.own: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.own.append(len(x))
            return super().forward(x)

    learn = Learner(toy, Appends(), engine="fast", silent=True)
    learn.fit(1, 1e-3)
    assert learn.engine.captured is None


class Weighted:
    """A loss that is an object, with a weight that changes from epoch to epoch."""

    weight = 1.0

    def __init__(self) -> None:
        self.own = [1.0]

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(preds, targets) * self.own[0]

    def method(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self(preds, targets)


SETTINGS = {"weight": 1.0}


def helper() -> float:
    return SETTINGS["weight"]


def calls_a_helper(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(preds, targets) * helper()


def reads_a_class(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(preds, targets) * Weighted.weight


def takes_settings(preds: torch.Tensor, targets: torch.Tensor, settings: dict[str, float]) -> torch.Tensor:
    return F.cross_entropy(preds, targets) * settings["weight"]


class Scaled(Net):
    """Its forward pass calls a method, which reads a global."""

    def scale(self) -> float:
        return SETTINGS["weight"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale()


WEIGHTED = Weighted()


class Heavier(Callback):
    """Every epoch weighs more."""

    def on_epoch_begin(self, fit: Any) -> None:
        SETTINGS["weight"] = WEIGHTED.own[0] = Weighted.weight = 1.0 + fit.epoch


@pytest.mark.parametrize(
    ("loss", "model"),
    [
        (WEIGHTED, Net),
        (WEIGHTED.method, Net),
        (partial(takes_settings, settings=SETTINGS), Net),
        (calls_a_helper, Net),
        (reads_a_class, Net),
        (nn.CrossEntropyLoss(), Scaled),
    ],
)
def test_it_captures_again_when_a_loss_reads_something_else(loss: Any, model: type[Net], toy: DataBunch):
    learners = [
        Learner(toy, seeded(model()), loss_func=loss, engine=engine, silent=True, callbacks=Heavier())
        for engine in ("fast", "eager")
    ]
    for learn in learners:
        learn.fit(3, 1e-2)
    assert learners[0].engine.captured is not None
    assert learners[0].recorder.record.batch_losses == learners[1].recorder.record.batch_losses


class Counts10:
    """Ten times the loss from the 15th call on."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(targets))
        return F.cross_entropy(preds, targets) * (10 if len(self.calls) >= 15 else 1)

    def method(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self(preds, targets)


@pytest.mark.parametrize("part", [lambda loss: loss, lambda loss: loss.method, lambda loss: partial(loss.method)])
def test_a_loss_that_counts_is_called_with_every_batch_and_no_other(part: Any, toy: DataBunch):
    found = []
    for engine in ("fast", "eager"):
        loss = Counts10()
        learn = Learner(toy, seeded(Net()), loss_func=part(loss), engine=engine, silent=True)
        learn.fit(3, 1e-2)
        found.append((loss.calls, learn.recorder.record.batch_losses))
    assert found[0] == found[1]


def rarely_masked() -> DataBunch:
    """Numbers to predict, of which few are missing, and none in the first batches of the validation set."""
    x, _ = toy_arrays()
    y = x.sum(1, keepdim=True)
    y[torch.arange(150, 200, 17)] = -999.0
    return DataBunch.create((x, y), (x, y), bs=16, seed=0)


def masked_mean(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    mask = targets != -999.0
    return ((preds[mask] - targets[mask]) ** 2).mean()


def masked_by_length(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    off = (preds - targets)[targets != -999.0]
    return off.square().sum() / len(off)


def largest(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    found = max(1, (targets > 2.0).nonzero().shape[0])
    return (preds - targets).square().flatten().topk(found).values.mean()


@pytest.mark.parametrize("loss", [masked_mean, masked_by_length, largest])
def test_shapes_that_depend_on_a_batch_are_left_to_the_eager_engine(loss: Any):
    learners = [
        Learner(rarely_masked(), seeded(Net(outputs=1)), loss_func=loss, engine=engine, silent=True)
        for engine in ("fast", "eager")
    ]
    for learn in learners:
        learn.fit(3, 1e-3)
    assert learners[0].engine.captured is None
    assert learners[0].recorder.record.batch_losses == learners[1].recorder.record.batch_losses


def test_metrics_whose_shapes_depend_on_a_batch_are_called_with_every_batch():
    learners = [
        Learner(
            rarely_masked(), seeded(Net(outputs=1)), nn.MSELoss(), metrics=masked_by_length, engine=engine, silent=True
        )
        for engine in ("fast", "eager")
    ]
    for learn in learners:
        learn.fit(2, 1e-3)
    assert learners[0].engine.captured is not None
    assert learners[0].recorder.metrics == learners[1].recorder.metrics
    assert learners[0].validate() == pytest.approx(
        learners[0].recorder.val_losses[-1:] + learners[0].recorder.metrics[-1]
    )


def test_a_gradient_that_is_somebody_elses_memory_is_copied(toy: DataBunch):
    """The gradient of a sum is one number seen many times, and that of a product a constant: no kernel may write there."""

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(20, 4)), nn.Parameter(torch.ones(4))
            self.register_buffer("c", torch.linspace(0, 1, 80).view(20, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ (self.a * self.c) + self.b + self.a.sum() + (self.a * self.c).sum()

    def loss(preds: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return preds.sum() / 1e3

    for callbacks in (None, GradientClip(1e-3)):
        options: dict[str, Any] = {"loss_func": loss, "metrics": None, "callbacks": callbacks}
        assert_agree(*(fitted(engine, Sums(), toy, **options) for engine in ("eager", "fast")))


def test_it_captures_again_for_batches_of_another_size_or_scale(captures: list[int]):
    x, y = toy_arrays()
    pixels = (x * 50 + 128).clamp(0, 255).to(torch.uint8)
    learners = [
        Learner(None, seeded(Net()), engine=engine, silent=True, metrics=accuracy) for engine in ("fast", "eager")
    ]
    for learn in learners:
        for bs, scale in ((16, 256.0), (8, 256.0), (8, 128.0)):
            learn._source = DataBunch.create((pixels, y), (pixels, y), bs=bs, seed=0, pixel_scale=scale)
            learn.fit(1, 1e-2)
    assert len(captures) == 2  # the scale is no part of the captured step
    assert_agree(learners[1], learners[0])


class Hidden(nn.Module):
    """A body whose gradients autograd.grad does not see: a reentrant checkpoint's."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(20, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        return self.lin2(checkpoint(self.lin1, x, use_reentrant=True).relu())


def test_parameters_that_a_function_hides_are_trained():
    eager, fast = (fitted(engine, Hidden()) for engine in ("eager", "fast"))
    assert fast.engine.captured is None
    assert "Hidden.forward calls torch.utils.checkpoint.checkpoint" in str(fast.engine.fallback_reason)
    assert all(map(torch.equal, fast.model.parameters(), eager.model.parameters()))


def test_hooks_on_gradients_are_called():
    calls = dict[str, int]()
    for engine in ("eager", "fast"):
        model, counts = Net(), list[int]()
        model.lin1.weight.register_post_accumulate_grad_hook(lambda _, counts=counts: counts.append(1))
        learn = fitted(engine, model)
        calls[engine] = len(counts)
    assert learn.engine.fallback_reason == "model.lin1 has a hook"
    assert calls["fast"] == calls["eager"] > 0
