"""The average of the weights: its numbers, and where the model has it."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from conftest import Net, WithNorms, seeded, toy_arrays
from onecycle import EMA, Callback, DataBunch, GradientAccumulation, Learner, accuracy
from onecycle.errors import SettingError


class Raw(Callback):
    """The weights that each batch is trained on, and those that the model has at each epoch's end."""

    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []
        self.epochs: list[torch.Tensor] = []

    def on_batch_begin(self, fit: Any) -> None:
        self.batches.append(fit.model.lin1.weight.detach().clone())

    def on_epoch_end(self, fit: Any) -> None:
        self.epochs.append(fit.model.lin1.weight.detach().clone())


def learner(data: DataBunch, *callbacks: Callback, **options: Any) -> Learner:
    return Learner(data, seeded(Net()), metrics=accuracy, callbacks=list(callbacks), silent=True, **options)


def test_the_numbers_are_those_of_a_loop_by_hand(toy: DataBunch):
    """torch.optim in a plain loop, the average in float64."""
    model = seeded(Net())
    opt = SGD(model.parameters(), 0.1)
    average, step, expected = [p.detach().double() for p in model.parameters()], 0, []
    for epoch in range(3):
        for xb, yb in toy.train_dl.epoch(epoch):
            opt.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            opt.step()
            decay = min(0.7, (1 + step) / (10 + step))
            average = [decay * a + (1 - decay) * p.detach() for a, p in zip(average, model.parameters(), strict=True)]
            step += 1
        expected.append(average)
    raw = Raw()
    learn = learner(toy, EMA(0.7), raw, opt_func=SGD, wd=0.0)
    learn.fit(3, 0.1)
    for found, wanted in zip(raw.epochs, expected, strict=True):
        assert torch.allclose(found.double(), wanted[0], atol=1e-6)
    for found, wanted in zip(learn.model.parameters(), expected[-1], strict=True):
        assert torch.allclose(found.double(), wanted, atol=1e-6)


def test_training_goes_on_with_the_weights_themselves(toy: DataBunch):
    plain, averaged = Raw(), Raw()
    learners = learner(toy, plain), learner(toy, averaged, EMA())
    for learn in learners:
        learn.fit_one_cycle(3, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(plain.batches, averaged.batches, strict=True))
    assert learners[0].recorder.record.batch_losses == learners[1].recorder.record.batch_losses
    assert learners[0].recorder.val_losses != learners[1].recorder.val_losses


def test_the_average_is_validated_and_left_in_the_model(toy: DataBunch):
    raw = Raw()
    learn = learner(toy, EMA(), raw)
    learn.fit(2, 1e-2)
    assert torch.equal(learn.model.lin1.weight, raw.epochs[-1])
    assert learn.validate() == pytest.approx([learn.recorder.val_losses[-1], *learn.recorder.metrics[-1]], rel=1e-6)


def test_no_memory_is_no_average(toy: DataBunch):
    plain, averaged = learner(toy), learner(toy, EMA(0.0))
    for learn in (plain, averaged):
        learn.fit(2, 1e-2)
    for a, b in zip(plain.model.parameters(), averaged.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_fit_that_is_stopped_in_the_middle_leaves_the_average(toy: DataBunch):
    class Stop(Callback):
        def __init__(self) -> None:
            self.stepped: list[torch.Tensor] = []

        def on_batch_end(self, fit: Any) -> None:
            self.stepped.append(fit.model.lin1.weight.detach().clone())
            if fit.iteration == 8:
                fit.stop("enough")

    stop = Stop()
    learn = learner(toy, EMA(0.5), stop)
    average = learn.model.lin1.weight.detach().clone()
    learn.fit(3, 1e-2)
    assert not learn.recorder.val_losses
    for step, weights in enumerate(stop.stepped):
        average += (1 - min(0.5, (1 + step) / (10 + step))) * (weights - average)
    assert torch.allclose(learn.model.lin1.weight, average, atol=1e-6)
    assert not torch.allclose(average, stop.stepped[-1], atol=1e-4)


def test_statistics_and_frozen_weights_are_the_models_own():
    x, _ = toy_arrays(columns=8)
    y = (x.sum(1) > 0).long()
    data = DataBunch.create((x, y), (x, y), bs=16, seed=0)
    models = []
    for callbacks in ([], [EMA()]):
        model = seeded(WithNorms())
        model.scale.requires_grad = False
        learn = Learner(data, model, callbacks=callbacks, silent=True)
        learn.fit(2, 1e-2)
        models.append(learn.model)
    for (name, a), (_, b) in zip(models[0].state_dict().items(), models[1].state_dict().items(), strict=True):
        assert torch.equal(a, b) == ("running" in name or name in ("scale", "bn.num_batches_tracked")), name


def test_it_averages_after_steps_only(toy: DataBunch):
    ema = EMA()
    learner(toy, ema, GradientAccumulation(5)).fit(2, 1e-2)
    assert ema.state()["steps"] == 6


def test_the_finder_leaves_no_trace_of_it(toy: DataBunch):
    learners = [learner(toy, EMA(0.9)) for _ in range(2)]
    learners[1].lr_find(num_it=30)
    for learn in learners:
        learn.fit(1, 1e-2)
        learn.lr_find(num_it=5)
        learn.fit(1, 1e-2)
    assert learners[0].recorder.losses == learners[1].recorder.losses
    assert learners[0].recorder.val_losses == learners[1].recorder.val_losses


def test_a_fit_of_no_epochs(toy: DataBunch):
    learn = learner(toy, EMA())
    before = learn.model.lin1.weight.detach().clone()
    learn.fit(0, 1e-2)
    assert torch.equal(learn.model.lin1.weight, before)


def test_a_decay_that_is_no_share():
    with pytest.raises(SettingError, match="EMA's decay is 99; expected how much of the average stays at each step"):
        EMA(99)


class Change(Callback):
    """Change the model when the second epoch begins; keep the weights of each step."""

    def __init__(self, change: Any, hook: str = "on_epoch_begin") -> None:
        self.change, self.hook, self.steps = change, hook, list[dict[str, torch.Tensor]]()

    def on_epoch_begin(self, fit: Any) -> None:
        if self.hook == "on_epoch_begin" and fit.epoch == 1:
            self.change(fit.model)
            self.steps = [weights(fit.model)]

    def on_batch_end(self, fit: Any) -> None:
        self.steps.append(weights(fit.model))

    def on_epoch_end(self, fit: Any) -> None:
        if self.hook == "on_epoch_end" and fit.epoch == 0:
            self.change(fit.model)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def new_head(model: Any) -> None:
    model.lin2 = nn.Linear(8, 4)
    nn.init.constant_(model.lin2.weight, 7.0)


def wider(model: Any) -> None:
    model.lin1, model.lin2 = nn.Linear(20, 16), nn.Linear(16, 4)


def average(steps: list[torch.Tensor], decay: float, start: torch.Tensor) -> torch.Tensor:
    for step in steps:
        start = start + (1 - decay) * (step - start)
    return start


@pytest.mark.parametrize("change", [new_head, wider])
def test_new_layers_are_averaged_from_their_own_weights(change: Any):
    learn = learner(DataBunch.create(toy_arrays(), toy_arrays(50), bs=16, seed=1), opt_func=SGD, wd=0.0)
    seen = Change(change)
    learn.fit(2, 0.01, callbacks=[EMA(0.1), seen])
    for name in ("lin2.weight", "lin2.bias"):
        first, *steps = [step[name] for step in seen.steps]
        assert torch.allclose(weights(learn.model)[name], average(steps, 0.1, first), atol=1e-6)


def test_a_frozen_layer_keeps_its_average_and_an_unfrozen_one_gets_one(toy: DataBunch):
    learn = learner(toy, opt_func=SGD, wd=0.0)
    learn.model.lin1.requires_grad_(False)
    start = weights(learn.model)

    def swap(model: Any) -> None:
        model.lin1.requires_grad_(True)
        model.lin2.requires_grad_(False)

    seen = Change(swap)
    learn.fit(2, 0.1, callbacks=[EMA(0.1), seen])
    first, *steps = [step["lin1.weight"] for step in seen.steps]
    found = weights(learn.model)
    assert torch.equal(first, start["lin1.weight"])
    assert torch.allclose(found["lin1.weight"], average(steps, 0.1, first), atol=1e-6)
    frozen = seen.steps[-1]["lin2.weight"]
    assert not torch.equal(frozen, start["lin2.weight"])
    assert torch.allclose(found["lin2.weight"], frozen, atol=1e-6)  # the average of what does not change any more


def test_a_layer_can_be_removed(toy: DataBunch):
    learn = Learner(toy, nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 8), nn.Linear(8, 4)), silent=True)
    learn.fit(3, 1e-2, callbacks=[EMA(0.9), Change(lambda model: model.__setitem__(1, nn.Identity()))])
    assert len(learn.recorder.val_losses) == 3


@pytest.mark.parametrize(
    "change",
    [
        new_head,
        lambda model: nn.init.constant_(model.lin2.weight, 7.0),
        lambda model: model.lin2.weight.data.fill_(7.0),
    ],
)
@pytest.mark.parametrize("extends", [True, False])
def test_what_was_changed_since_the_average_is_in_the_model_stays(toy: DataBunch, change: Any, extends: bool):
    seen, raw = Change(change, "on_epoch_end"), Change(None, "")
    learn = learner(toy)
    if extends:
        learn.fit(1, 1e-4, callbacks=[EMA(0.9), raw])
        change(learn.model)
        last = raw.steps[-1]
        learn.extend(1)
        after = raw.steps[-len(learn.data.train_dl)]
    else:
        learn.fit(2, 1e-4, callbacks=[EMA(0.9), seen])
        last, after = seen.steps[-len(learn.data.train_dl) - 1], seen.steps[-len(learn.data.train_dl)]
    assert torch.allclose(after["lin2.weight"], torch.full((4, 8), 7.0), atol=0.01)
    assert torch.allclose(after["lin1.weight"], last["lin1.weight"], atol=1e-3)  # went on with the weights themselves
    assert torch.allclose(learn.model.lin2.weight, torch.full((4, 8), 7.0), atol=0.05)
