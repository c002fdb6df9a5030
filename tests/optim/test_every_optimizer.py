"""Every optimizer of torch.optim, in every order of fits, beside a loop over torch.optim itself."""

import copy
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Adafactor, Adam, AdamW, Muon, Optimizer, RMSprop, SparseAdam  # fmt: skip

from conftest import Net, seeded, toy_arrays
from onecycle import DataBunch, Learner
from onecycle.errors import ModelError, SettingError

OPTIMIZERS = [thing for thing in vars(torch.optim).values() if isinstance(thing, type) and issubclass(thing, Optimizer)]
DRIVEN = [thing for thing in OPTIMIZERS if thing not in (Optimizer, LBFGS)]  # by one gradient a step
FITS = {
    "fit": lambda learn: learn.fit(1, 1e-3),
    "cycle": lambda learn: learn.fit_one_cycle(1, 1e-2),
    "decayed": lambda learn: learn.fit_one_cycle(1, 2e-3, moms=0.5, wd=0.2),
    "find": lambda learn: learn.lr_find(num_it=5),
}


class OnlyMatrices(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(20, 8, bias=False), nn.Linear(8, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin2(torch.relu(self.lin1(x)))


class OnlyEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table((x[:, :3] * 2).clamp(-4, 4).long() + 4).sum(1)


def model_for(optimizer: Any) -> nn.Module:
    return seeded({Muon: OnlyMatrices, SparseAdam: OnlyEmbedding}.get(optimizer, Net)())


def by_hand(optimizer: Any, model: nn.Module, data: DataBunch, steps: list[tuple[float, float | None, float]]) -> None:
    """Train with torch.optim alone; each step has a learning rate, a momentum or None, and a decoupled decay."""
    opt = optimizer(model.parameters(), **({"fused": True} if optimizer in (Adam, AdamW) else {}))
    batches = (batch for epoch in range(len(steps)) for batch in data.train_dl.epoch(epoch))
    for (lr, mom, wd), (x, y) in zip(steps, batches, strict=False):
        for group in opt.param_groups:
            group["lr"], own_decay = lr, "decoupled_weight_decay" in group
            group["weight_decay"] = wd if own_decay else 0.0
            group |= {"decoupled_weight_decay": True} if own_decay else {}
            if mom is not None and "betas" in group:
                group["betas"] = (mom, group["betas"][1])
            elif mom is not None and "momentum" in group:
                group["momentum"] = mom
        if optimizer is RMSprop and mom:
            for parameter, state in opt.state.items():
                state.setdefault("momentum_buffer", torch.zeros_like(parameter))
        F.cross_entropy(model(x), y).backward()
        if not own_decay:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 - wd * lr)
        opt.step()
        opt.zero_grad()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("order", list(permutations(FITS)), ids="-".join)
@pytest.mark.parametrize("optimizer", DRIVEN)
def test_every_order_of_fits_is_that_of_a_torch_loop(optimizer: Any, order: tuple[str, ...]):
    data = DataBunch.create(toy_arrays(96), None, bs=16, seed=3)
    learn = Learner(data, model_for(optimizer), opt_func=optimizer, wd=0.1, silent=True)
    steps: list[tuple[float, float | None, float]] = []
    for name in order:
        FITS[name](learn)
        if name != "find":
            rates = zip(learn.recorder.lrs, learn.recorder.moms, strict=True)
            steps += [(lr, mom, 0.2 if name == "decayed" else 0.1) for lr, mom in rates]
    expected = model_for(optimizer)
    by_hand(optimizer, expected, data, steps)
    assert len(steps) == 18
    for found, wanted in zip(learn.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(found, wanted)


def test_an_optimizer_that_needs_a_closure_is_refused():
    data = DataBunch.create(toy_arrays(), None, bs=16, seed=3)
    with pytest.raises(SettingError, match="LBFGS computes the loss several times"):
        Learner(data, Net(), opt_func=LBFGS, silent=True).fit(1, 1e-3)


def test_what_an_optimizer_refuses_is_said():
    data = DataBunch.create(toy_arrays(), None, bs=16, seed=3)
    with pytest.raises(SettingError, match="opt_func: Muon does not take the model's parameters or its settings: Muon"):
        Learner(data, Net(), opt_func=Muon, silent=True).fit(1, 1e-3)


@pytest.mark.parametrize("optimizer", [Muon, Adafactor])
def test_l2_that_an_optimizer_does_not_have_is_refused(optimizer: Any):
    data = DataBunch.create(toy_arrays(), None, bs=16, seed=3)
    learn = Learner(data, OnlyMatrices(), opt_func=optimizer, true_wd=False, silent=True)
    with pytest.raises(SettingError, match=f"true_wd=False: {optimizer.__name__} has no L2 regularisation"):
        learn.fit(1, 1e-3)
    learn.fit(1, 1e-3, wd=0.0)


def test_true_wd_false_is_l2_also_for_adamw():
    data, models = DataBunch.create(toy_arrays(), None, bs=16, seed=3), [seeded(Net()), seeded(Net())]
    for model, optimizer in zip(models, (Adam, AdamW), strict=True):
        Learner(data, model, opt_func=optimizer, true_wd=False, wd=0.3, silent=True).fit(2, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


@pytest.mark.parametrize("optimizer", [thing for thing in DRIVEN if thing not in (Muon, SparseAdam)])
def test_a_parameter_that_never_gets_a_gradient_stays(optimizer: Any):
    net = seeded(Net())
    net.unused = nn.Linear(3, 3)
    before = copy.deepcopy(net.unused.state_dict())
    learn = Learner(DataBunch.create(toy_arrays(), None, bs=16, seed=3), net, opt_func=optimizer, silent=True,
                    engine="eager", wd=0.5)  # fmt: skip
    learn.fit(1, 1e-3)
    learn.fit_one_cycle(1, 1e-3)
    assert all(torch.equal(net.unused.state_dict()[name], value) for name, value in before.items())
    without = seeded(Net())
    other = Learner(learn.data, without, opt_func=optimizer, silent=True, engine="eager", wd=0.5)
    other.fit(1, 1e-3)
    other.fit_one_cycle(1, 1e-3)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in without.state_dict().items())


# --- gradients that an optimizer cannot use -------------------------------------------------------------------------


class WithSparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embedding((x[:, :3] * 2).clamp(-4, 4).long() + 4).sum(1))


@pytest.mark.parametrize("opt_func", [Adam, AdamW, RMSprop, partial(Adam, foreach=True)])
def test_sparse_gradients_are_explained(opt_func: Any):
    learn = Learner(DataBunch.create(toy_arrays(), None, bs=16, seed=3), WithSparse(), opt_func=opt_func, silent=True)
    with pytest.raises(
        SettingError,
        match=r"embedding.weight: \w+ cannot use its sparse gradients \(.*\); use an Embedding with sparse=False, or "
        "opt_func=torch.optim.SGD",
    ):
        learn.fit(1, 1e-3)


def test_sparse_gradients_with_l2_are_explained():
    data = DataBunch.create(toy_arrays(), None, bs=16, seed=3)
    with pytest.raises(SettingError, match=r"SGD cannot use its sparse gradients .*; use true_wd=True"):
        Learner(data, WithSparse(), opt_func=SGD, true_wd=False, silent=True).fit(1, 1e-3)
    Learner(data, WithSparse(), opt_func=SGD, silent=True).fit(1, 1e-3)


class WithComplex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Parameter(torch.randn(20, 6, dtype=torch.complex128)), nn.Linear(6, 4).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x.to(torch.complex128) @ self.mix).abs())


@pytest.mark.parametrize("optimizer", [thing for thing in DRIVEN if thing not in (Muon, SparseAdam, Adafactor)])
def test_complex_parameters_train(optimizer: Any):
    learn = Learner(DataBunch.create(toy_arrays(), None, bs=16, seed=3), WithComplex(), opt_func=optimizer, silent=True)
    before = learn.model.mix.detach().clone()
    learn.fit_one_cycle(2, 1e-2)
    assert not torch.equal(before, learn.model.mix)


def test_complex_parameters_that_an_optimizer_cannot_train_are_named():
    learn = Learner(DataBunch.create(toy_arrays(), None, bs=16, seed=3), WithComplex(), opt_func=Adafactor, silent=True)
    with pytest.raises(
        SettingError, match="mix is complex128, which Adafactor cannot train .*; use two real parameters"
    ):
        learn.fit(1, 1e-2)


def test_complex128_cannot_be_saved(here: Path):
    learn = Learner(DataBunch.create(toy_arrays(), None, bs=16, seed=3), WithComplex(), silent=True)
    for save in (lambda: learn.save("a"), lambda: learn.fit(1, 1e-2, checkpoint="run")):
        with pytest.raises(
            ModelError, match="the model's mix is complex128, which safetensors files cannot hold; .* use complex64"
        ):
            save()


def test_a_parameter_that_muon_cannot_train_is_named():
    data = DataBunch.create(toy_arrays(), bs=16, seed=1)
    learn = Learner(data, OnlyMatrices(), opt_func=Muon, silent=True)
    learn.fit(1, 1e-3)
    learn.model.lin2 = nn.Linear(8, 4)
    with pytest.raises(SettingError, match=r"lin2.bias has 1 dimension, and Muon trains matrices only; freeze it \("):
        learn.fit(1, 1e-3)


@pytest.mark.parametrize("optimizer", DRIVEN, ids=lambda optimizer: optimizer.__name__)
def test_what_was_saved_is_loaded(optimizer: Any, here: Path):
    data = DataBunch.create(toy_arrays(), bs=16, seed=1)
    first, second = (Learner(data, model_for(optimizer), opt_func=optimizer, silent=True) for _ in range(2))
    first.fit_one_cycle(1, 1e-3)
    first.save("a")
    second.load("a")
    for learn in (first, second):
        learn.fit_one_cycle(1, 1e-3)
    assert second.recorder.record.batch_losses == first.recorder.record.batch_losses
