"""The kernel called directly gives torch.optim's numbers, to the bit, and knows when it must not be called."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from conftest import WithNorms, seeded
from onecycle.optim.fused_adam import FusedAdam
from onecycle.optim.groups import leaves, split_layers
from onecycle.optim.optimizer import GroupedOptimizer

CALLS = {"_fused_adamw_": 0, "_fused_adam_": 0}


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch):
    for name in CALLS:
        kernel = getattr(torch, name)
        CALLS[name] = 0

        def call(*args: Any, name=name, kernel=kernel, **options: Any) -> None:
            CALLS[name] += 1
            kernel(*args, **options)

        monkeypatch.setattr(torch, name, call)


def train(opt_func: Any, true_wd: bool = True, bn_wd: bool = True, split: bool = False) -> list[Tensor]:
    model = seeded(WithNorms())
    opt = GroupedOptimizer(opt_func, split_layers(model, [model.head]) if split else [leaves(model)], true_wd, bn_wd)
    opt.set_wd(0.1)
    x, y = torch.linspace(-1, 1, 320).view(40, 8), torch.arange(40) % 2
    for step in range(6):
        opt.set_rates([0.01 * (step + 1), 0.02][: 1 + split], 0.9 - 0.01 * step)
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    states = opt.torch_opt.state
    return [*model.parameters(), *(value for p in model.parameters() for value in states[p].values())]


@pytest.mark.parametrize("opt_func", [Adam, AdamW])
@pytest.mark.parametrize("true_wd", [True, False])
@pytest.mark.parametrize("bn_wd", [True, False])
@pytest.mark.parametrize("split", [True, False])
def test_the_numbers_and_the_state_are_torch_optims(
    opt_func: Any, true_wd: bool, bn_wd: bool, split: bool, monkeypatch: pytest.MonkeyPatch
):
    found = train(opt_func, true_wd, bn_wd, split)
    monkeypatch.setattr(FusedAdam, "create_for", lambda opt: None)
    expected = train(opt_func, true_wd, bn_wd, split)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("bn_wd", "split", "calls"), [(True, False, 1), (False, False, 2), (True, True, 2), (False, True, 4)]
)
def test_groups_with_the_same_settings_share_a_call(bn_wd: bool, split: bool, calls: int):
    train(Adam, bn_wd=bn_wd, split=split)
    assert CALLS["_fused_adamw_"] == 6 * calls


def test_a_group_that_is_set_apart_gets_its_own_call():
    model = nn.Linear(2, 2)
    opt = GroupedOptimizer(Adam, [leaves(model)])
    opt.set_wd(0.0)
    opt.set_rates([0.1], None)
    for step in range(4):
        before = model.bias.detach().clone()
        model(torch.ones(3, 2)).sum().backward()
        if step == 3:
            opt.groups[1]["lr"] = 0.0
        opt.step()
        opt.zero_grad()
    assert torch.equal(model.bias, before)


def test_a_parameter_without_a_gradient_is_left_to_torch_optim():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    opt = GroupedOptimizer(Adam, [leaves(model)])
    opt.set_wd(0.1)
    opt.set_rates([0.1], None)
    for _ in range(2):
        model(torch.ones(3, 2)).sum().backward()
        opt.step()
        opt.zero_grad()
    before = model[1].weight.detach().clone()
    model[0](torch.ones(3, 2)).sum().backward()
    opt.step()
    assert torch.equal(model[1].weight, before)
    assert opt.torch_opt.state[model[0].weight]["step"].item() == 3
    assert opt.torch_opt.state[model[1].weight]["step"].item() == 2


def test_optimizers_it_is_not_for():
    model = nn.Linear(2, 2)

    class Own(Adam):
        pass

    for opt in (
        SGD(model.parameters(), 0.1, fused=True),
        Adam(model.parameters(), amsgrad=True, fused=True),
        Adam(model.parameters(), maximize=True, fused=True),
        Adam(model.parameters(), foreach=True),
        Own(model.parameters(), fused=True),
    ):
        model(torch.ones(3, 2)).sum().backward()
        opt.step()
        assert FusedAdam.create_for(opt) is None
    assert FusedAdam.create_for(Adam(nn.Linear(2, 2).parameters(), fused=True)) is None  # no gradients yet


def test_moments_never_become_denormal():
    model = nn.Linear(4, 2)
    opt = GroupedOptimizer(Adam, [leaves(model)])
    opt.set_wd(0.0)
    opt.set_rates([0.01], None)
    plain = nn.Linear(4, 2)
    plain.load_state_dict(model.state_dict())
    torch_opt = AdamW(plain.parameters(), 0.01, weight_decay=0.0, fused=True)
    tiny = torch.finfo(torch.float32).tiny
    for step in range(1200):
        x = torch.ones(3, 4)
        if step > 5:
            x[:, 0] = 0.0  # a pixel that is not inked any more
        for one in (model, plain):
            one(x).square().sum().backward()
        opt.step()
        opt.zero_grad()
        torch_opt.step()
        torch_opt.zero_grad()
    means = opt.torch_opt.state[model.weight]["exp_avg"]
    assert (means[:, 0] == 0).all()
    assert ((means == 0) | (means.abs() >= tiny)).all()
    theirs = torch_opt.state[plain.weight]["exp_avg"]
    assert ((theirs != 0) & (theirs.abs() < tiny)).any()  # what it is there against
    assert torch.allclose(model.weight, plain.weight, rtol=0, atol=1e-9)
