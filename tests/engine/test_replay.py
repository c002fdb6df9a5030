"""Replaying equals running again: steps that look the same and are not, each compared with the eager engine."""

import enum
import operator
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner

STEPS = 24


class At(Callback):
    """Calls a function with the fit before each batch, or before that of one step."""

    def __init__(self, function: Callable[[Any], object], step: int | None = None) -> None:
        self.function, self.step = function, step

    def on_batch_begin(self, fit: Any) -> None:
        if self.step is None or fit.iteration == self.step:
            self.function(fit)


def compare(
    make: Callable[[], nn.Module], change: Any = None, step: int | None = None, **options: Any
) -> list[Learner]:
    """Train with both engines; return the learners, whose numbers are the same."""
    learners: list[Learner] = []
    for engine in ("eager", "fast"):
        data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
        callbacks = At(change, step) if change else None
        learn = Learner(data, seeded(make()), engine=engine, callbacks=callbacks, silent=True, **options)
        learn.fit(2, 1e-2)
        learners.append(learn)
    eager, fast = learners
    assert fast.recorder.record.batch_losses == eager.recorder.record.batch_losses
    assert fast.recorder.val_losses == eager.recorder.val_losses
    assert fast.recorder.metrics == eager.recorder.metrics
    for a, b in zip(eager.model.state_dict().values(), fast.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    return learners


def reason(learners: list[Learner]) -> str:
    return str(learners[1].engine.fallback_reason)


class Adds(Net):
    """Net with something done to its input."""

    def extra(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.extra(x))


def adds(function: Any, **attributes: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = type("Adds", (Adds,), {"extra": function})()
        for name, value in attributes.items():
            setattr(model, name, value() if callable(value) else value)
        return model

    return make


def summed(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    total = torch.tensor(0.0)
    total += (preds.argmax(1) == targets).float().mean()
    return total


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x * torch.tensor([1.0, 2.0] * 10).mul_(1.5),
        lambda self, x: x * x.new_tensor([1.0, 2.0] * 10).add_(1),
        lambda self, x: x * torch.ones_like(x.sum()).mul_(3),
        lambda self, x: x + torch.zeros(20).index_fill_(0, torch.tensor([1]), 2.0),
    ],
)
def test_constants_that_the_step_makes_and_changes_begin_anew(function: Any):
    assert compare(adds(function), metrics=summed)[1].engine.captured is not None


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.bn(x)
        return super().forward(x)


def test_statistics_of_a_layer_whose_output_is_not_used():
    assert "without using its result" in reason(compare(Unused))


def with_strides(fit: Any) -> None:
    fit.model.lin1.weight.data = fit.model.lin1.weight.detach().t().contiguous().t()


@pytest.mark.parametrize("opt_func", [torch.optim.AdamW, torch.optim.SGD])
def test_a_parameter_with_other_strides(opt_func: Any):
    compare(Net, with_strides, 13, opt_func=opt_func)


def transposed(fit: Any) -> None:
    if fit.iteration % 2:
        fit.xb = fit.xb.t().contiguous().t()


def test_batches_with_other_strides():
    compare(adds(lambda self, x: x.reshape(-1, 4).repeat(1, 5).view(-1, 20)[: len(x)]), transposed)


def test_a_batch_that_asks_for_a_gradient():
    seen: list[bool] = []

    class Looks(Callback):
        def on_backward_end(self, fit: Any) -> None:
            seen.append(fit.xb.grad is not None)

    learn = Learner(
        DataBunch.create(toy_arrays(), bs=16, seed=3),
        Net(),
        engine="fast",
        callbacks=[At(lambda fit: fit.xb.requires_grad_()), Looks()],
        silent=True,
    )
    learn.fit(1, 1e-2)
    assert all(seen)


def preset(fit: Any) -> None:
    fit.model.lin1.weight.grad = torch.ones_like(fit.model.lin1.weight)


def test_gradients_that_a_callback_left_are_added_to():
    compare(Net, preset)


class Mode(enum.Enum):
    A = 1

    def __init__(self, _: int) -> None:
        self.seen, self.factor = [1.0], 1.0


Place = namedtuple("Place", "items")


class Meta(type):
    count = 1.0


class Counted(metaclass=Meta):
    pass


class Base(Adds):
    factor, seen = 1.0, [1.0]

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


PLACE, ARRAY, HOLDER = Place([1.0]), np.ones((2, 3)), {"list": [0.0] * 990}


def of_super(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x * super(type(self), self).factor


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (lambda self, x: x * Mode.A.factor, lambda fit: setattr(Mode.A, "factor", 1.0 + fit.iteration)),
        (lambda self, x: x * Mode.A.seen[-1], lambda fit: Mode.A.seen.append(1.0 + fit.iteration)),
        (lambda self, x: x * PLACE.items[-1], lambda fit: PLACE.items.append(1.0 + fit.iteration)),
        (lambda self, x: x * Counted.count, lambda fit: setattr(Meta, "count", 1.0 + fit.iteration)),
        (lambda self, x: x * float(ARRAY[0, 0]), lambda fit: ARRAY.fill(1.0 + fit.iteration)),
        (lambda self, x: x + len(HOLDER["list"]) / 1000, lambda fit: HOLDER["list"].append(0.0)),
        (lambda self, x: F.relu(x), lambda fit: setattr(F, "relu", torch.tanh if fit.iteration % 2 else torch.relu)),
    ],
)
def test_what_a_callback_changes_is_noticed(function: Any, change: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(F, "relu", F.relu)
    states = [(Mode.A, "factor", 1.0), (Meta, "count", 1.0)]

    def begin() -> nn.Module:
        for owner, name, value in states:
            setattr(owner, name, value)
        Mode.A.seen[:], PLACE.items[:], HOLDER["list"][:] = [1.0], [1.0], [0.0] * 990
        ARRAY.fill(1)
        F.relu = torch.relu
        return adds(function)()

    compare(begin, change)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda self, x: (Mode.A.seen.append(1.0), x)[1], lambda: Mode.A.seen),
        (lambda self, x: (PLACE.items.append(1.0), x)[1], lambda: PLACE.items),
        (lambda self, x: (operator.iadd(PLACE.items, [1.0]), x)[1], lambda: PLACE.items),
        (lambda self, x: (np.add(ARRAY, 1, out=ARRAY), x)[1], lambda: ARRAY.tolist()),
    ],
)
def test_what_the_step_changes_is_changed_in_each_step_and_no_other(function: Any, found: Any):
    counts: list[Any] = []

    def begin() -> nn.Module:
        counts.append(str(found()))
        Mode.A.seen[:], PLACE.items[:] = [1.0], [1.0]
        ARRAY.fill(1)
        return adds(function)()

    compare(begin)
    counts.append(str(found()))
    assert counts[1] == counts[2]


def looks_by_numpy(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(preds, targets) * (1 + float(np.less(targets, 1).float().mean()))


def stacked(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(preds, targets) * torch.tensor([(targets == 0).float().mean(), 1.0]).sum()


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
@pytest.mark.parametrize("loss", [looks_by_numpy, stacked])
def test_values_that_are_read_behind_the_dispatcher(loss: Any):
    assert "gives a tensor to numpy" in (text := reason(compare(Net, loss_func=loss))) or "torch.stack" in text


def test_a_split_at_places_of_a_tensor():
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.n.add_(1)
        return x * x.tensor_split(self.n % 19 + 1, dim=1)[0].mean()

    def make() -> nn.Module:
        model = adds(function)()
        model.register_buffer("n", torch.zeros(1, dtype=torch.long))
        return model

    assert "splits a tensor" in reason(compare(make))


def test_checks_are_kept():
    def make() -> nn.Module:
        return adds(lambda self, x: (torch._assert_async(x.abs().max() < 1e9), x)[1])()

    assert "checks the values in a batch" in reason(compare(make))


def test_a_write_to_a_view_of_a_sum():
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        a = x.sum(0, keepdim=True)
        a[:, :8].clamp_(-1, 1)
        return x + a.view(-1)

    assert compare(adds(function))[1].engine.captured is not None


@pytest.mark.parametrize("name", ["t_", "squeeze_", "unsqueeze_"])
def test_shapes_that_are_changed_in_place(name: str):
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        getattr(self.square.detach(), name)(*([0] if "squeeze" in name else []))
        return x @ self.square.reshape(20, 20)

    model = compare(adds(function, square=lambda: nn.Parameter(torch.eye(20))))[1].model
    assert model.square.shape[-2:] == (20, 20)


def test_flags_of_tensors_are_left_alone():
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.lin1.weight.requires_grad_(not self.lin1.weight.requires_grad)
        return x

    assert "sets requires_grad" in reason(compare(adds(function)))


@pytest.mark.parametrize("opt_func", [torch.optim.SGD, torch.optim.AdamW])
def test_hooks_of_the_optimizer_are_called(opt_func: Any):
    calls: dict[str, int] = {}
    for engine in ("eager", "fast"):
        learn = Learner(
            DataBunch.create(toy_arrays(), bs=16, seed=3), Net(), opt_func=opt_func, engine=engine, silent=True
        )
        learn.fit(1, 1e-2)
        count: list[int] = []
        learn.opt.torch_opt.register_step_post_hook(lambda *_, count=count: count.append(1))
        learn.fit(1, 1e-2)
        calls[engine] = len(count)
    assert calls["fast"] == calls["eager"] == 12


def test_hooks_for_saved_tensors_are_called():
    packed: list[int] = []
    learn = Learner(DataBunch.create(toy_arrays(), bs=16, seed=3), Net(), engine="fast", silent=True)
    learn.fit(1, 1e-2)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(1) or t, lambda t: t):
        learn.fit(1, 1e-2)
    assert len(packed) >= 12


@dataclass
class Weighted:
    weight: torch.Tensor = field(default_factory=lambda: torch.ones(4))

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(preds, targets, self.weight)


def test_a_loss_whose_comparison_is_not_a_yes_or_no():
    learners = compare(Net, lambda fit: None, loss_func=Weighted(), metrics=[Weighted()])
    assert learners[1].engine.captured is not None


class Updates(Net):
    """A running mean under a decorator, and a switch to eval mode that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(20, 20).requires_grad_(False).eval()
        self.register_buffer("mean", torch.zeros(20))

    def train(self, mode: bool = True) -> "Updates":
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def update(self, x: torch.Tensor) -> None:
        self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.teacher.eval()
        if self.training:
            self.update(x)
        return super().forward(x - self.mean + 0.01 * self.teacher(x))


def test_a_decorated_method_and_a_mode_that_is_set_already_are_captured():
    assert compare(Updates)[1].engine.captured is not None


@pytest.mark.parametrize("opt_func", [torch.optim.AdamW, torch.optim.SGD])
def test_torchs_count_of_writes_is_as_eager_leaves_it(opt_func: Any):
    """A model may look at `_version` in validation, which is not captured then."""
    learners = compare(lambda: nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)), opt_func=opt_func)
    assert learners[1].engine.captured is not None
    eager, fast = ([value._version for value in learn.model.state_dict(keep_vars=True).values()] for learn in learners)
    assert fast == eager
    assert max(eager) > 1
