"""Batches whose gradients are accumulated train as one batch of all their rows."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, GradientAccumulation, GradientClip, Learner
from onecycle.errors import SettingError

MOMENTUM = partial(SGD, momentum=0.9)


def trained(bs: int, *callbacks: Callback, rows: int = 56, model: nn.Module | None = None, **options: Any) -> Learner:
    """Two epochs in float64, batches in the order of the rows, the last one short."""
    x, y = toy_arrays(rows)
    learn = Learner(
        DataBunch(DataLoader(TensorDataset(x.double(), y), bs)),
        seeded(model or Net()).double(),
        callbacks=list(callbacks),
        silent=True,
        **{"opt_func": MOMENTUM, **options},
    )
    learn.fit(2, 0.1)
    return learn


def assert_equal(a: Learner, b: Learner, within: float = 1e-12) -> None:
    for found, expected in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=within)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 60), st.integers(1, 9), st.integers(1, 6))
def test_it_is_the_larger_batch(rows: int, bs: int, n: int):
    assert_equal(trained(bs, GradientAccumulation(n), rows=rows), trained(bs * n, rows=rows))


def test_it_is_the_larger_batch_bit_for_bit_where_no_sum_is_rounded():
    """With whole numbers, powers of two and float64 nothing is."""
    x, y = torch.randint(-4, 5, (32, 5)).double(), torch.randint(-4, 5, (32, 1)).double()
    weights = []
    for bs, n in ((2, 4), (8, 1)):
        model = nn.Linear(5, 1, bias=False).double()
        nn.init.zeros_(model.weight)
        data = DataBunch(DataLoader(TensorDataset(x, y), bs))
        learn = Learner(data, model, nn.MSELoss(), SGD, wd=0.0, callbacks=GradientAccumulation(n), silent=True)
        learn.fit(1, 2**-6)
        weights.append(model.weight)
    assert torch.equal(*weights)


def test_one_batch_a_step_changes_nothing():
    assert_equal(trained(16, GradientAccumulation(1)), trained(16), within=0)


@pytest.mark.parametrize("options", [{"true_wd": False, "wd": 0.1}, {"opt_func": torch.optim.Adam}])
def test_with_other_optimizers(options: dict[str, Any]):
    assert_equal(trained(8, GradientAccumulation(2), **options), trained(16, **options), within=1e-9)


@pytest.mark.parametrize("clip_first", [True, False])
def test_clipping_sees_the_whole_gradient(clip_first: bool):
    callbacks = [GradientClip(0.05), GradientAccumulation(3)]
    clipped = trained(16, GradientClip(0.05))
    assert_equal(trained(16 // 4, GradientAccumulation(4), GradientClip(0.05)), clipped)
    found = trained(8, *(callbacks if clip_first else reversed(callbacks)))
    assert_equal(found, trained(24, GradientClip(0.05)))
    assert not torch.allclose(found.model.lin1.weight, trained(24).model.lin1.weight)  # it did clip


def test_a_weight_that_only_some_batches_reach():
    class Sometimes(Net):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            on = x[:, :1] > 1.2  # few rows
            out = super().forward(x)
            return out + on * self.extra if on.any() else out

    x, _ = toy_arrays(56)
    reached = [(part[:, 0] > 1.2).any().item() for part in x.split(4)]
    assert not all(reached)
    assert any(reached)
    found = trained(4, GradientAccumulation(7), model=Sometimes())
    assert_equal(found, trained(28, model=Sometimes()))


def test_others_are_asked_only_where_there_is_a_step(toy: DataBunch):
    class Looks(Callback):
        backward, batches, skipped = 0, 0, 0

        def on_backward_end(self, fit: Any) -> None:
            assert all(parameter.grad is not None for parameter in fit.model.parameters())
            self.backward += 1

        def on_batch_end(self, fit: Any) -> None:
            self.batches += 1
            self.skipped += fit.skip_step

    looks = Looks()
    learn = Learner(toy, Net(), callbacks=[looks, GradientAccumulation(5)], silent=True)
    learn.fit(2, 1e-3)
    assert (looks.batches, looks.skipped, looks.backward) == (24, 18, 6)  # 12 batches an epoch: 5, 5 and 2
    assert [entry["step"] for entry in learn.opt.state_dict()["state"].values()] == [6] * 4
    assert len(learn.recorder.losses) == 24


def test_a_second_fit_begins_anew(toy: DataBunch):
    class Stop(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 3:
                fit.stop("enough")

    weights = []
    for old in (True, False):
        learn = Learner(toy, seeded(Net()), opt_func=SGD, silent=True)
        accumulate = GradientAccumulation(3)
        learn.fit(1, 1e-2, callbacks=[accumulate, Stop()])  # one batch is left over
        learn.fit(1, 1e-2, callbacks=[accumulate if old else GradientAccumulation(3)])
        weights.append(learn.model.lin1.weight)
    assert torch.equal(*weights)


def test_several_targets():
    x, y = toy_arrays(48)
    other = y.roll(1)
    weights = []
    for bs, n in ((8, 3), (24, 1)):
        batches = [(x[i : i + bs], [y[i : i + bs], other[i : i + bs]]) for i in range(0, 48, bs)]
        learn = Learner(
            DataBunch(DataLoader(batches, batch_size=None)),
            seeded(Net()),
            lambda out, targets: sum(F.cross_entropy(out, target) for target in targets),
            SGD,
            callbacks=GradientAccumulation(n),
            silent=True,
        )
        learn.fit(1, 0.1)
        weights.append(learn.model.lin1.weight)
    assert torch.allclose(*weights, atol=1e-6)


def test_not_even_one():
    with pytest.raises(SettingError, match="GradientAccumulation's n is 0; expected a whole number of at least 1"):
        GradientAccumulation(0)


class Step(Callback):
    """Change the model before some steps, by their number."""

    def __init__(self, hook: str, changes: dict[int, Any]) -> None:
        self.hook, self.changes = hook, changes

    def on_batch_begin(self, fit: Any) -> None:
        if self.hook == "on_batch_begin" and fit.iteration in self.changes:
            self.changes[fit.iteration](fit.model)

    def on_batch_end(self, fit: Any) -> None:
        if self.hook == "on_batch_end" and fit.iteration + 1 in self.changes:
            self.changes[fit.iteration + 1](fit.model)


def deep() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 8), nn.Linear(8, 4)))


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_batch_end"])
def test_a_layer_that_is_frozen_while_its_gradient_is_pending_does_not_step(hook: str):
    """Beside a loop of torch that leaves the gradient out when it steps."""
    x, y = toy_arrays(64)
    changes = {1: lambda model: model[0].requires_grad_(False), 4: lambda model: model[0].requires_grad_(True)}
    learn = Learner(
        DataBunch(DataLoader(TensorDataset(x.double(), y), 8)), deep().double(), silent=True, opt_func=SGD, wd=0.0
    )
    learn.fit(1, 0.1, callbacks=[GradientAccumulation(2), Step(hook, changes)])
    model = deep().double()
    opt = SGD(model.parameters(), lr=0.1)
    for i in range(8):
        changes.get(i, lambda _: None)(model)
        (F.cross_entropy(model(x[i * 8 : i * 8 + 8].double()), y[i * 8 : i * 8 + 8]) / 2).backward()
        if i % 2:
            for parameter in model.parameters():
                parameter.grad = parameter.grad if parameter.requires_grad else None
            opt.step()
            opt.zero_grad()
    for found, expected in zip(learn.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def widen(model: Any) -> None:
    model[0], model[1] = nn.Linear(20, 16), nn.Linear(16, 8)


@pytest.mark.parametrize("hook", ["on_batch_begin", "on_batch_end"])
@pytest.mark.parametrize("change", [lambda model: model.__setitem__(1, nn.Identity()), widen])
def test_a_layer_that_is_removed_or_replaced_takes_its_gradient_with_it(change: Any, hook: str):
    data = DataBunch.create(toy_arrays(64), toy_arrays(50), bs=8, seed=1)
    learn = Learner(data, deep(), silent=True, opt_func=SGD, wd=0.0)
    callback, seen = GradientAccumulation(3), list[bool]()

    class Look(Callback):
        def on_backward_end(self, fit: Any) -> None:
            seen.append(all(p.grad is not None and p.grad.shape == p.shape for p in fit.model.parameters()))

    learn.fit(2, 1e-2, callbacks=[callback, Step(hook, {4: change}), Look()])
    assert seen == [True] * 6
    assert all(parameter.grad is None for parameter in learn.model.parameters())


def test_a_new_layer_of_the_same_shape_does_not_step_by_the_gradient_of_the_old_one():
    data = DataBunch.create(toy_arrays(64), toy_arrays(50), bs=8, seed=1)
    learn, grads = Learner(data, deep(), silent=True, opt_func=SGD, wd=0.0), list[torch.Tensor]()
    new = nn.Linear(8, 4)

    class Look(Callback):
        def on_backward_begin(self, fit: Any) -> None:
            if fit.iteration == 1:
                grads.append(torch.autograd.grad(fit.loss, new.weight, retain_graph=True)[0])

        def on_backward_end(self, fit: Any) -> None:
            if fit.iteration == 1:
                assert torch.allclose(fit.model[2].weight.grad, grads[0] / 2)

    replace_head = Step("on_batch_end", {1: lambda model: model.__setitem__(2, new)})
    learn.fit(1, 1e-2, callbacks=[GradientAccumulation(2), replace_head, Look()])
    assert len(grads) == 1
