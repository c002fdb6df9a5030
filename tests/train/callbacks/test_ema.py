"""The average of the weights: its numbers, and where the model has it."""

from typing import Any

import pytest
import torch
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
