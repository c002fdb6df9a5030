"""What is trained is what the model says now: between fits, in callbacks, and after a resume."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, RMSprop

from conftest import seeded, toy_arrays
from onecycle import EMA, Callback, DataBunch, GradientClip, Learner  # fmt: skip
from onecycle.errors import SettingError

ENGINES = ["eager", "auto", "fast"]


def layers() -> nn.Sequential:
    return nn.Sequential(seeded(nn.Linear(20, 8)), nn.ReLU(), seeded(nn.Linear(8, 4)))


def learner(model: nn.Module | None = None, **options: Any) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    return Learner(data, model or layers(), **{"silent": True, **options})


class At(Callback):
    """Call a function at the beginning of an epoch, or at another hook of it."""

    def __init__(self, epoch: int, act: Callable[[Any], Any], hook: str = "on_epoch_begin") -> None:
        self.epoch, self.act, self.hook = epoch, act, hook

    def on_epoch_begin(self, fit):
        if fit.epoch == self.epoch and self.hook == "on_epoch_begin":
            self.act(fit)

    def on_batch_end(self, fit):
        if fit.epoch == self.epoch and fit.num_batch == 4 and self.hook == "on_batch_end":
            self.act(fit)

    def on_epoch_end(self, fit):
        if fit.epoch == self.epoch and self.hook == "on_epoch_end":
            self.act(fit)


def moved(model: nn.Module, train: Callable[[], Any]) -> set[str]:
    """The names of the parameters that `train` changes."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train()
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


# --- between fits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("opt_func", [Adam, partial(SGD, momentum=0.9)])
def test_a_layer_that_is_unfrozen_by_hand_is_trained(engine: str, opt_func: Any, capsys: pytest.CaptureFixture[str]):
    model = layers()
    model[0].requires_grad_(False)
    learn = learner(model, engine=engine, opt_func=opt_func, silent=None)
    assert moved(model, lambda: learn.fit(1, 1e-2)) == {"2.weight", "2.bias"}
    assert "optimizer:" not in capsys.readouterr().out
    kept = learn.opt.torch_opt.state[model[2].weight]
    model[0].requires_grad_(True)
    assert moved(model, lambda: learn.fit(1, 1e-2)) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert "optimizer: takes in 0.weight, 0.bias\n" in capsys.readouterr().out
    assert learn.opt.torch_opt.state[model[2].weight] is kept


@pytest.mark.parametrize("engine", ENGINES)
def test_a_layer_that_is_frozen_by_hand_stays_and_keeps_its_moments(engine: str, capsys: pytest.CaptureFixture[str]):
    learn = learner(engine=engine, silent=None)
    learn.fit(1, 1e-2)
    model, before = learn.model, learn.opt.torch_opt.state[learn.model[0].weight]["exp_avg"].clone()
    model[0].requires_grad_(False)
    assert moved(model, lambda: learn.fit(1, 1e-2, wd=0.5)) == {"2.weight", "2.bias"}
    assert "optimizer: leaves out 0.weight, 0.bias\n" in capsys.readouterr().out
    model[0].requires_grad_(True)
    learn.fit(0, 1e-2)
    assert torch.equal(learn.opt.torch_opt.state[model[0].weight]["exp_avg"], before)


@pytest.mark.parametrize("engine", ENGINES)
def test_layers_that_are_replaced_added_and_removed_between_fits(engine: str, capsys: pytest.CaptureFixture[str]):
    learn = learner(engine=engine, silent=None)
    model: Any = learn.model
    learn.fit(1, 1e-2)
    model[2] = nn.Linear(8, 4)
    assert moved(model, lambda: learn.fit(1, 1e-2)) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    out = capsys.readouterr().out
    assert "optimizer: takes in 2.weight, 2.bias; leaves out 2.weight, 2.bias\n" in out
    model.append(nn.Linear(4, 4))
    assert "3.weight" in moved(model, lambda: learn.fit(1, 1e-2))
    del model[3]
    learn.fit(1, 1e-2)
    assert "optimizer: leaves out 3.weight, 3.bias\n" in capsys.readouterr().out
    assert len(learn.opt.torch_opt.state) == 4


def test_the_steps_after_a_replacement_are_those_of_a_torch_loop():
    learn, model = learner(wd=0.0, opt_func=partial(SGD, momentum=0.9), engine="eager"), layers()
    head = seeded(nn.Linear(8, 4), 3)
    learn.fit(1, 0.1)
    learn.model[2] = head
    learn.fit(1, 0.2)
    opt = SGD(model.parameters(), 0.1, momentum=0.9)
    for epoch in range(2):
        if epoch == 1:
            model[2] = seeded(nn.Linear(8, 4), 3)
            opt.param_groups[0]["params"][2:] = model[2].parameters()
            opt.param_groups[0]["lr"] = 0.2
        for x, y in learn.data.train_dl.epoch(epoch):
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), learn.model.parameters(), strict=True))


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def test_a_replaced_head_gets_the_rate_of_the_head_and_freezing_sees_it():
    learn = learner(TwoParts()).split(lambda model: [model.head])
    model: Any = learn.model
    model.head = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    model.body.append(nn.Linear(8, 8))
    learn.fit(1, slice(1e-3, 1e-2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in learn.opt.groups]
    assert groups == [["body.0.weight", "body.3.weight"], ["body.0.bias", "body.1.weight", "body.1.bias", "body.3.bias"],
                      ["head.0.weight", "head.2.weight"], ["head.0.bias", "head.2.bias"]]  # fmt: skip
    assert [group["lr"] for group in learn.opt.groups] == pytest.approx([1e-3, 1e-3, 1e-2, 1e-2])
    model.head = nn.Linear(8, 4)
    learn.freeze()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "head.weight", "head.bias", "body.1.weight", "body.1.bias"}  # fmt: skip


class Lazy(nn.Module):
    """Creates its head in the first forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(20, 8), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.body(x))
        if self.head is None:
            self.head = seeded(nn.Linear(8, 4))
        return self.head(x)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_layer_that_the_first_forward_pass_creates_is_trained_from_the_first_step_on(in_memory: bool):
    x, y = toy_arrays(16)
    dataset = torch.utils.data.TensorDataset(x, y)
    data = DataBunch.create((x, y), None, bs=16) if in_memory else DataBunch(torch.utils.data.DataLoader(dataset, 16))
    learn = Learner(data, Lazy(), silent=True, engine="eager")
    learn.fit(1, 1e-2)
    assert not torch.equal(learn.model.head.weight, seeded(nn.Linear(8, 4)).weight)


def test_other_settings_of_the_learner_make_another_optimizer(capsys: pytest.CaptureFixture[str]):
    learn = learner(silent=None)
    learn.fit(1, 1e-2)
    learn.opt_func = SGD
    learn.fit(1, 1e-2)
    assert type(learn.opt.torch_opt) is SGD
    learn.bn_wd = False
    learn.fit(1, 1e-2)
    assert [group["decoupled_wd"] for group in learn.opt.groups] == [0.01, 0.0]
    assert capsys.readouterr().out.count("optimizer: created anew, since opt_func, true_wd or bn_wd is another\n") == 2


def test_freezing_everything_by_hand_is_refused():
    learn = learner()
    learn.fit(1, 1e-2)
    learn.model.requires_grad_(False)
    with pytest.raises(SettingError, match="the model has no trainable parameters"):
        learn.fit(1, 1e-2)


class Temperature(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(preds * self.scale, targets)


def test_parameters_of_a_loss_are_trained_if_the_model_has_them_and_else_named(capsys: pytest.CaptureFixture[str]):
    loss, model = Temperature(), TwoParts()
    learner(model, loss_func=loss, silent=None).fit(1, 1e-2)
    assert loss.scale.item() == 1.0
    assert "loss_func: scale of Temperature is not trained, only the model's parameters are" in capsys.readouterr().out
    model.loss = loss
    learner(model, loss_func=loss, silent=None).fit(1, 1e-2)
    assert loss.scale.item() != 1.0
    assert "is not trained" not in capsys.readouterr().out


# --- in callbacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "engine"),
    [
        *product(["on_epoch_begin", "on_epoch_end", "on_batch_end"], ENGINES),
    ],
)
def test_unfreezing_in_a_callback_takes_effect_in_that_fit(engine: str, hook: str, capsys: pytest.CaptureFixture[str]):
    learn = learner(TwoParts(), engine=engine, silent=None).split(lambda model: [model.head])
    learn.freeze()
    learn.callbacks = [At(1, lambda fit: learn.unfreeze(), hook)]
    body = learn.model.body[0].weight
    before, seen = body.detach().clone(), []
    learn.callbacks.append(At(0, lambda fit: seen.append(torch.equal(body, before)), "on_epoch_end"))
    learn.fit(3, slice(1e-3, 1e-2))
    opt = learn.opt
    assert seen == [True]
    assert not torch.equal(body, before)
    assert capsys.readouterr().out.count("optimizer: takes in body.0.weight, body.0.bias\n") == 1
    assert opt.torch_opt.state[learn.model.head.weight]["step"].item() == 36
    steps = {"on_epoch_begin": 24, "on_batch_end": 19, "on_epoch_end": 12}[hook]
    assert opt.torch_opt.state[body]["step"].item() == steps
    learn.fit(1, 1e-3)
    assert learn.opt is opt


def test_a_layer_that_a_callback_replaces_is_trained():
    learn = learner()
    learn.callbacks = [At(1, lambda fit: fit.model.__setitem__(2, seeded(nn.Linear(8, 4), 5)))]
    learn.fit(2, 1e-2)
    assert not torch.equal(learn.model[2].weight, seeded(nn.Linear(8, 4), 5).weight)
    assert learn.opt.torch_opt.state[learn.model[2].weight]["step"].item() == 12


class Alternate(Callback):
    """Train the layers in turn, a batch each."""

    def on_batch_begin(self, fit):
        fit.model[0].requires_grad_(fit.iteration % 2 == 0)
        fit.model[2].requires_grad_(fit.iteration % 2 == 1)


@pytest.mark.parametrize("opt_func", [Adam, partial(SGD, momentum=0.9)])
def test_freezing_in_turn_is_that_of_a_torch_loop(opt_func: Any, capsys: pytest.CaptureFixture[str]):
    learn, model = learner(opt_func=opt_func, wd=0.0, engine="eager", silent=None), layers()
    learn.fit(1, 0.01, callbacks=[Alternate(), GradientClip(1e9)])
    opt = opt_func(model.parameters(), lr=0.01)
    for i, (x, y) in enumerate(learn.data.train_dl.epoch(0)):
        model[0].requires_grad_(i % 2 == 0)
        model[2].requires_grad_(i % 2 == 1)
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    for a, b in zip(model.parameters(), learn.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)  # torch's loop has not the fused kernel
    assert capsys.readouterr().out.count("optimizer:") <= 3  # each change is shown once


def test_the_finder_leaves_no_trace_of_what_callbacks_unfreeze():
    learns = [learner(TwoParts()).split(lambda model: [model.head]) for _ in range(2)]
    learns[1].model.load_state_dict(learns[0].model.state_dict())
    for learn in learns:
        learn.freeze()
        learn.fit(1, 1e-2)
    learns[0].callbacks = [At(0, lambda fit: learns[0].unfreeze(), "on_batch_end")]
    learns[0].lr_find(num_it=20)
    learns[0].callbacks = []
    for learn in learns:
        learn.fit_one_cycle(1, 1e-2)
    for (name, a), b in zip(learns[0].model.named_parameters(), learns[1].model.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.requires_grad == b.requires_grad


def test_splitting_in_a_callback_is_refused():
    learn = learner()
    learn.callbacks = [At(0, lambda fit: learn.split([fit.model[2]]))]
    with pytest.raises(SettingError, match="split: a fit is under way"):
        learn.fit(1, 1e-2)


def test_callbacks_of_the_library_cost_no_look_at_the_model(monkeypatch: pytest.MonkeyPatch):
    from onecycle.optim.optimizer import GroupedOptimizer

    looks, follow = [], GroupedOptimizer.follow
    monkeypatch.setattr(GroupedOptimizer, "follow", lambda *args: looks.append(1) or follow(*args))
    learner(engine="eager").fit(2, 1e-2, callbacks=[EMA(0.9), GradientClip(1.0)])
    assert len(looks) < 6  # not at each of the 24 steps


# --- rates, and settings of the groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_callback_sees_the_rates_of_its_step(engine: str):
    seen = []

    class See(Callback):
        def on_train_begin(self, fit):
            seen.append((fit.lr, fit.mom))

        def on_batch_end(self, fit):
            assert fit.opt.param_groups is fit.opt.groups
            seen.append((fit.lr, fit.mom))

    learn = learner(engine=engine)
    learn.fit_one_cycle(2, 1e-2, callbacks=See())
    assert seen[1:] == list(zip(learn.recorder.lrs, learn.recorder.moms, strict=True))
    assert seen[0] == seen[1]
    learn = learner(engine=engine, opt_func=torch.optim.Adagrad)
    seen.clear()
    learn.fit(1, 1e-2, callbacks=See())
    assert seen == [(1e-2, None)] * 13


class Scheduled(Callback):
    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def on_train_begin(self, fit):
        self.scheduler = self.make(fit.opt.torch_opt)

    def on_epoch_end(self, fit):
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(1.0)
        else:
            self.scheduler.step()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "make",
    [
        lambda opt: torch.optim.lr_scheduler.StepLR(opt, 1, 0.5),
        lambda opt: torch.optim.lr_scheduler.LambdaLR(opt, lambda epoch: 0.5**epoch),
        lambda opt: torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0),
    ],
)
def test_a_scheduler_of_torch_is_refused(engine: str, make: Any):
    with pytest.raises(SettingError, match="the schedule of the fit sets both before each step: replace fit.schedule"):
        learner(engine=engine).fit(4, 1e-2, callbacks=Scheduled(make))


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
def test_a_rate_that_would_be_overwritten_is_refused(hook: str):
    def write(fit: Any) -> None:
        for group in fit.opt.groups:
            group["lr"] = 1e-5

    with pytest.raises(SettingError, match="set the learning rate or momentum between two steps"):
        learner().fit(2, 1e-2, callbacks=At(0, write, hook))


def test_a_rate_for_one_step_holds_and_is_recorded():
    class Warm(Callback):
        def on_batch_begin(self, fit):
            if fit.iteration < 3:
                for group in fit.opt.groups:
                    group["lr"] = 1e-4

    learn = learner(opt_func=SGD, wd=0.0)
    learn.fit(1, 1e-2, callbacks=Warm())
    assert learn.recorder.lrs == [1e-4] * 3 + [1e-2] * 9
    model, opt = layers(), None
    opt = SGD(model.parameters(), 1e-4)
    for i, (x, y) in enumerate(learn.data.train_dl.epoch(0)):
        opt.param_groups[0]["lr"] = 1e-4 if i < 3 else 1e-2
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), learn.model.parameters(), strict=True))


def test_a_momentum_that_no_schedule_sets_lasts():
    def write(fit: Any) -> None:
        for group in fit.opt.groups:
            group["momentum"] = 0.5

    learn = learner(opt_func=RMSprop)
    learn.fit(2, 1e-3, callbacks=At(1, write))
    assert learn.recorder.moms == [0.0] * 12 + [0.5] * 12


def test_a_schedule_may_be_replaced_at_an_epoch():
    from onecycle.optim.schedules import Constant

    learn = learner()
    learn.fit(2, 1e-2, callbacks=At(1, lambda fit: setattr(fit, "schedule", Constant([1e-4]))))
    assert learn.recorder.lrs == [1e-2] * 12 + [1e-4] * 12


class Decay(Callback):
    def on_epoch_begin(self, fit):
        fit.opt.set_wd(0.1 * fit.epoch)


class Eps(Callback):
    def on_epoch_begin(self, fit):
        for group in fit.opt.groups:
            group["eps"] = 10.0 ** (fit.epoch - 8)


class Unfreeze(Callback):
    def on_epoch_begin(self, fit):
        for parameter in fit.model[0].parameters():
            parameter.requires_grad_(fit.epoch != 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("change", "opt_func"), [(Decay, Adam), (Decay, SGD), (Eps, Adam), (Eps, RMSprop)])
def test_decay_and_eps_that_a_callback_sets_take_effect(engine: str, change: type[Callback], opt_func: Any):
    learn, model = learner(opt_func=opt_func, engine=engine), layers()
    learn.fit(3, 1e-2, callbacks=change())
    opt = opt_func(model.parameters(), **({"decoupled_weight_decay": True, "fused": True} if opt_func is Adam else {}))
    for epoch in range(3):
        wd = 0.1 * epoch if change is Decay else 0.01
        group = opt.param_groups[0]
        group |= {"lr": 1e-2, "weight_decay": wd if opt_func is Adam else 0.0}
        group |= {"eps": 10.0 ** (epoch - 8)} if change is Eps else {}
        for x, y in learn.data.train_dl.epoch(epoch):
            F.cross_entropy(model(x), y).backward()
            if opt_func is not Adam:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1 - wd * 1e-2)
            opt.step()
            opt.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), learn.model.parameters(), strict=True))


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def resume_settings(self) -> dict[str, Any]:
        return {}  # the resumed fit goes on to its end

    def on_batch_end(self, fit):
        if fit.iteration + 1 == self.at:
            fit.stop("interrupted")


@pytest.mark.parametrize("at", [5, 14, 20, 26])
@pytest.mark.parametrize("opt_func", [Adam, partial(SGD, momentum=0.9)])
@pytest.mark.parametrize("change", [Decay, Eps, Unfreeze])
def test_resuming_knows_what_callbacks_set_and_froze(change: type[Callback], opt_func: Any, at: int, tmp_path: Path):
    if change is Eps and opt_func is not Adam:
        pytest.skip("SGD has no eps")
    plain = learner(opt_func=opt_func)
    plain.fit(3, 1e-2, callbacks=[change(), Stop(0)])
    learner(opt_func=opt_func).fit(3, 1e-2, callbacks=[change(), Stop(at)], checkpoint=tmp_path / "run")
    again = learner(opt_func=opt_func)
    again.resume(tmp_path / "run", callbacks=[change(), Stop(0)])
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), again.model.parameters(), strict=True))
    assert plain.recorder.record.batch_losses == again.recorder.record.batch_losses
