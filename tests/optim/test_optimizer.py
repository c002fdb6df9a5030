"""Oracles: the semantics written out by hand in float64, beside the library's groups over torch optimizers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, RMSprop

from conftest import Net, WithNorms, seeded
from onecycle.errors import SettingError
from onecycle.optim.groups import LayerGroups, leaves, split_layers
from onecycle.optim.optimizer import AdamW, GroupedOptimizer


def names(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in parameters]


def test_norms_and_biases_are_in_the_second_half():
    model = WithNorms()
    opt = GroupedOptimizer(AdamW, [leaves(model)])
    assert names(model, opt.groups[0]["params"]) == ["conv.weight", "head.1.weight", "head.2.weight", "scale"]
    assert names(model, opt.groups[1]["params"]) == [
        *("conv.bias", "bn.weight", "bn.bias"),
        *("head.0.weight", "head.0.bias", "head.2.bias"),
    ]


def test_tied_weights_are_stepped_once():
    model = Net(8, 8, 8)
    model.lin2.weight = model.lin1.weight
    opt = GroupedOptimizer(AdamW, [leaves(model)])
    assert len(opt.groups[0]["params"]) == 1


def test_a_bias_stays_one_when_its_layer_is_parametrized():
    model = WithNorms()
    for layer in (model.conv, model.head[2]):
        nn.utils.parametrizations.weight_norm(layer)
    nn.utils.parametrizations.weight_norm(model.head[1])
    opt = GroupedOptimizer(AdamW, [leaves(model)])
    assert names(model, opt.groups[1]["params"]) == [
        *("conv.bias", "bn.weight", "bn.bias"),
        *("head.0.weight", "head.0.bias", "head.2.bias"),
    ]


def test_a_bias_stays_one_when_its_layer_is_parametrized_between_fits():
    model = WithNorms()
    opt = GroupedOptimizer(AdamW, LayerGroups([leaves(model)]))
    before = names(model, opt.groups[1]["params"])
    nn.utils.parametrizations.weight_norm(model.head[2])
    opt.follow(model)
    assert sorted(names(model, opt.groups[1]["params"])) == sorted(before)


def test_each_layer_group_needs_its_rate():
    net = Net()
    opt = GroupedOptimizer(AdamW, split_layers(net, [net.lin2]))
    for lrs in ([0.1], [0.1, 0.1, 0.1]):
        with pytest.raises(SettingError, match=rf"gives {len(lrs)} learning rates? for 2 layer groups; expected one"):
            opt.set_rates(lrs, None)


def test_a_change_is_told_once_also_when_it_was_followed_quietly():
    net = Net()
    opt = GroupedOptimizer(AdamW, LayerGroups([leaves(net)]))
    net.lin1.requires_grad_(False)
    assert opt.follow(net, is_shown=False) is None
    assert opt.follow(net) == "optimizer: leaves out lin1.weight, lin1.bias"
    assert opt.follow(net) is None


# --- the steps themselves -------------------------------------------------------------------------------------------

Update = Callable[[dict[str, Tensor], Tensor, float, float], Tensor]  # state, gradient, lr, mom → what to subtract


def adam(state: dict[str, Tensor], grad: Tensor, lr: float, mom: float) -> Tensor:
    t = state["t"] = state.get("t", torch.zeros((), dtype=torch.float64)) + 1
    m = state["m"] = mom * state.get("m", torch.zeros_like(grad)) + (1 - mom) * grad
    v = state["v"] = 0.99 * state.get("v", torch.zeros_like(grad)) + 0.01 * grad**2
    return lr * (m / (1 - mom**t)) / ((v / (1 - 0.99**t)).sqrt() + 1e-8)


def sgd(state: dict[str, Tensor], grad: Tensor, lr: float, mom: float) -> Tensor:
    m = state["m"] = mom * state["m"] + grad if "m" in state else grad
    return lr * m


@pytest.mark.parametrize("bn_wd", [True, False])
@pytest.mark.parametrize("true_wd", [True, False])
@pytest.mark.parametrize(("opt_func", "update"), [(AdamW, adam), (partial(SGD, momentum=0.9), sgd), (SGD, sgd)])
def test_steps_are_the_semantics_written_out(opt_func: Any, update: Update, true_wd: bool, bn_wd: bool):
    model = seeded(WithNorms()).double()
    oracle = seeded(WithNorms()).double()
    oracle.load_state_dict(model.state_dict())
    groups = split_layers(model, [model.head])
    opt = GroupedOptimizer(opt_func, groups, true_wd, bn_wd)
    opt.set_wd([0.3, 0.1])
    head = {id(p) for leaf in split_layers(oracle, [oracle.head])[1] for p in leaf.parameters()}
    spared = {n for n, _ in oracle.named_parameters() if n.endswith("bias") or n.startswith(("bn", "head.0"))}
    states: dict[str, dict[str, Tensor]] = {name: {} for name, _ in oracle.named_parameters()}
    x, y = torch.randn(40, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(40) % 2
    for step in range(5):
        lrs, mom = [0.01 * (step + 1), 0.02 * (step + 1)], 0.9 - 0.02 * step
        opt.set_rates(lrs, mom)
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
        loss = nn.functional.cross_entropy(oracle(x), y)
        grads = torch.autograd.grad(loss, list(oracle.parameters()))
        with torch.no_grad():
            for (name, p), grad in zip(oracle.named_parameters(), grads, strict=True):
                lr, wd = (lrs[1], 0.1) if id(p) in head else (lrs[0], 0.3)
                wd = wd if bn_wd or name not in spared else 0.0
                if true_wd:
                    p.mul_(1 - wd * lr)
                else:
                    grad = grad + wd * p
                p.sub_(update(states[name], grad, lr, mom))
    for (name, p), q in zip(model.named_parameters(), oracle.parameters(), strict=True):
        assert torch.allclose(p, q, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize(
    "opt_func", [AdamW, SGD, RMSprop, Adagrad, partial(Adam, foreach=True), partial(AdamW, amsgrad=True)]
)
@pytest.mark.parametrize("true_wd", [True, False])
def test_parameters_without_a_gradient_are_left_alone(opt_func: Any, true_wd: bool):
    model = Net()
    before = model.lin1.weight.detach().clone()
    opt = GroupedOptimizer(opt_func, [leaves(model)], true_wd)
    opt.set_wd(0.5)
    opt.set_rates([0.1], 0.9)
    model.lin2(torch.ones(3, 8)).sum().backward()
    opt.step()
    assert torch.equal(model.lin1.weight, before)
    assert model.lin2.weight.detach().abs().sum() > 0


def test_momentum_goes_where_the_optimizer_keeps_it():
    net = Net()
    for opt_func, expected in ((AdamW, 0.8), (SGD, 0.8), (RMSprop, 0.8), (Adagrad, None)):
        opt = GroupedOptimizer(opt_func, [leaves(net)])
        opt.set_rates([0.1], 0.8)
        assert opt.momentum == expected
    assert GroupedOptimizer(AdamW, [leaves(net)]).groups[0]["betas"] == (0.9, 0.99)


def test_the_fused_kernel_is_used_where_it_can_be():
    net = Net()
    assert GroupedOptimizer(AdamW, [leaves(net)]).groups[0]["fused"]
    assert not GroupedOptimizer(partial(Adam, foreach=True), [leaves(net)]).groups[0]["fused"]
    assert not GroupedOptimizer(SGD, [leaves(net)]).groups[0]["fused"]


@pytest.mark.parametrize("opt_func", [AdamW, partial(SGD, momentum=0.9), RMSprop, Adagrad])
def test_a_first_gradient_may_come_late(opt_func: Any):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    opt = GroupedOptimizer(opt_func, [leaves(net)])
    opt.set_wd(0.1)
    opt.set_rates([0.1], 0.9)
    for step in range(4):
        (net(torch.ones(2, 3)) if step > 1 else net[0](torch.ones(2, 3))).sum().backward()
        opt.step()
        opt.zero_grad()
    assert len(opt.torch_opt.state) == 4


def test_weights_tied_across_groups_belong_to_the_first():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    opt = GroupedOptimizer(AdamW, split_layers(net, [net[1]]))
    assert [len(group["params"]) for group in opt.groups] == [1, 1, 0, 1]


@pytest.mark.parametrize("wd", [-1.0, float("nan"), [0.1, 0.2]])
def test_decay_that_cannot_be_used(wd: Any):
    with pytest.raises(SettingError, match="wd is .*expected a finite number of at least 0"):
        GroupedOptimizer(AdamW, [leaves(Net())]).set_wd(wd)


def test_nothing_to_train():
    model = Net().requires_grad_(False)
    with pytest.raises(SettingError, match="no trainable parameters"):
        GroupedOptimizer(AdamW, [leaves(model)])
