"""What may be captured, what is refused, and that a refusal changes nothing."""

import dataclasses
import enum
import functools
import os
import random
import time
import warnings
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import Net
from onecycle.engine.follow import Follower
from onecycle.engine.trace import CannotCaptureError, Tracer

SETTINGS = {"scale": 2.0}
READ = SETTINGS.get
draw = random.random
Pair = namedtuple("Pair", "first second")


class Mode(enum.Enum):
    TWICE = 2


@dataclasses.dataclass
class Output:
    hidden: torch.Tensor
    scale: float = 1.0

    def scaled(self) -> torch.Tensor:
        return self.hidden * self.scale


class Counter:
    def __init__(self) -> None:
        self.n = 0

    def add(self) -> int:
        self.n += 1
        return self.n


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return -ctx.factor * grads[0] * x.sign().abs(), None


class CountsBackward(Reverse):
    calls = 0

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        CountsBackward.calls += 1
        return grads[0], None


class Own(Net):
    """A model with all kinds of things in its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.table, self.counter, self.array = [1.0], {"a": 1.0}, Counter(), np.ones(2)
        self.function, self.mode = lambda x: x * 2, Mode.TWICE
        self.register_buffer("n", torch.zeros(()))
        self.blocks = nn.ModuleList([nn.Linear(20, 20), nn.Sequential(nn.Linear(20, 20), nn.ReLU())])
        self.learn = nn.Linear(20, 20)
        self.__hidden = 3.0

    @property
    def hidden(self) -> float:
        return self.__hidden

    @staticmethod
    def half(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    @classmethod
    def double(cls, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def global_learn_of_the_same_name(m: Own, x: torch.Tensor) -> torch.Tensor:
    return m.learn(x)


def generator(x: torch.Tensor) -> Any:
    for k in range(1, 3):
        yield x * k


def several_exits(x: torch.Tensor) -> torch.Tensor:
    try:
        if x.ndim == 2:
            return x
        raise ValueError(x.shape)
    except ValueError:
        return x.flatten(1)
    finally:
        x = x + 1


def in_place(m: Own, x: torch.Tensor) -> torch.Tensor:
    m.n += 1
    m.n.mul_(1.5)
    y = torch.zeros_like(x)
    y[:, 0] = x[:, 1]
    return x.clone().mul_(2) + y + m.n


def local_containers(m: Own, x: torch.Tensor) -> torch.Tensor:
    parts = [x]
    parts.append(x * 2)
    parts += [x * 3]
    named = {"first": parts.pop()}
    named["second"] = parts[0]
    counter = Counter()
    counter.add()
    return sum(named.values()) * counter.n  # pyright: ignore[reportReturnType] -- a tensor


ALLOWED = {
    "attributes and globals": lambda m, x: x * m.items[0] * m.table["a"] * SETTINGS["scale"] * m.hidden * READ("scale"),
    "property and methods": lambda m, x: m.double(m.half(x)) * m.hidden,
    "a function in an attribute": lambda m, x: m.function(x),
    "an enum": lambda m, x: x * m.mode.value if m.mode is Mode.TWICE else x,
    "a dataclass": lambda m, x: Output(x, 3.0).scaled(),
    "a named tuple": lambda m, x: Pair(x, x).first,
    "modules in a list": lambda m, x: functools.reduce(lambda y, block: block(y), m.blocks, x),
    "loops and comprehensions": lambda m, x: sum(f(x) for f in (torch.tanh, F.relu, m.function)),
    "sorted with a key": lambda m, x: sorted([x, x * 2], key=lambda t: t.shape[0])[1],
    "map": lambda m, x: next(iter(map(m.half, [x]))),
    "a generator": lambda m, x: sum(generator(x)),
    "exceptions": lambda m, x: several_exits(x),
    "shapes": lambda m, x: x.view(len(x), int(np.prod(x.shape[1:]))) * x.size(1) * x.dim(),
    "operators": lambda m, x: -(x**2) + abs(x) // 2 - x @ torch.eye(20) + (x > 0) * x + x.T.T,
    "torch's generator": lambda m, x: F.dropout(x, 0.5) + torch.randn_like(x),
    "no_grad": lambda m, x: x - _mean(x),
    "in place": in_place,
    "containers of its own": local_containers,
    "an autograd function": lambda m, x: Reverse.apply(m.learn(x), 0.5),
    "all parameters": lambda m, x: x + sum(p.square().sum() for p in m.parameters()),
    "a layer made on the spot": lambda m, x: nn.Softmax(1)(x),
    "partial": lambda m, x: functools.partial(F.leaky_relu, negative_slope=0.3)(x),
    "several results": lambda m, x: torch.max(x, 1).values[:, None] + x.median(1)[0][:, None] + x,
    "an attribute named as a global": global_learn_of_the_same_name,
    "a frozen model of its own": lambda m, x: TEACHER(x),
    "getattr": lambda m, x: m.half(x) * getattr(m, "nothing", 2.0) * hasattr(m, "items"),
}


def _mean(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return x.mean(0)


def stores(m: Own, x: torch.Tensor) -> torch.Tensor:
    m.last = x
    return x


def rebinds(m: Own, x: torch.Tensor) -> torch.Tensor:
    m.n = m.n + 1
    return x


def changes_through_a_name(m: Own, x: torch.Tensor) -> torch.Tensor:
    items = m.items
    items += [1.0]
    return x


def changes_an_array(m: Own, x: torch.Tensor) -> torch.Tensor:
    array = m.array
    array *= 2
    return x


def catches_everything(m: Own, x: torch.Tensor) -> torch.Tensor:
    try:
        m.counter.add()
    except BaseException:
        return x * 2
    return x


def catches_the_tracer(m: Own, x: torch.Tensor) -> torch.Tensor:
    try:
        return x if x.sum() > 0 else -x
    except BaseException:
        return x


def mutable_default(m: Own, x: torch.Tensor, calls: list[int] = []) -> torch.Tensor:  # noqa: B006 -- a counter of a kind
    calls.append(1)
    return x


def sets_a_class_attribute(m: Own, x: torch.Tensor) -> torch.Tensor:
    type(m).count = 1
    return x


class Adds:
    def __radd__(self, x: torch.Tensor) -> torch.Tensor:
        return x + random.random()


ADDS = Adds()

REFUSED = {
    "sets .last of Own": stores,
    "sets .n of Own": rebinds,
    "sets .n of Counter": lambda m, x: x * m.counter.add(),
    "changes a list that it did not create (append)": lambda m, x: (m.items.append(1.0), x)[1],
    "changes a list that it did not create": changes_through_a_name,
    "changes a ndarray that it did not create": changes_an_array,
    "changes an item of a dict that it did not create": lambda m, x: (m.table.__class__, _set(m.table), x)[2],
    "sets .n of Counter (": catches_everything,
    "depends on the values in a batch": catches_the_tracer,
    "changes a list that it did not create (append) (test": mutable_default,
    "sets .count of Own": sets_a_class_attribute,
    "calls random.Random.random": lambda m, x: x * draw(),
    "calls random.Random.randrange": lambda m, x: x * next(map(random.randrange, [3])),
    "calls numpy.random": lambda m, x: x * np.random.rand(),
    "calls time.time": lambda m, x: x * time.time(),
    "calls print": lambda m, x: (print(), x)[1],
    "reads os.environ": lambda m, x: x * float(os.environ.get("SCALE", "1")),
    "uses .numpy of a tensor": lambda m, x: x * float(x.numpy().mean()),
    "uses .tolist of a tensor": lambda m, x: x * x.tolist()[0][0],
    "uses .data_ptr of a tensor": lambda m, x: x * x.data_ptr(),
    "runs Adds.__radd__ in a way that cannot be followed": lambda m, x: x + ADDS,
    "depends on the values": lambda m, x: x[x > 0],
    "sets .calls of CountsBackward": lambda m, x: CountsBackward.apply(m.learn(x), 1.0),
    "uses a tensor with a gradient that is not": lambda m, x: LAYER(x),
    "uses the global SCRIPTED, which is scripted": lambda m, x: SCRIPTED(x),
    "calls torch.random.manual_seed": lambda m, x: (torch.manual_seed(0), x)[1],
    "creates an object of torch.nn.modules.linear.Linear": lambda m, x: nn.Linear(20, 20)(x),
    "uses a tensor with a gradient that is not a parameter": lambda m, x: x * WEIGHT,
}
TEACHER = nn.Sequential(nn.Linear(20, 20), nn.ReLU()).requires_grad_(False)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated
    SCRIPTED = torch.jit.script(nn.Linear(20, 20))
LAYER, WEIGHT = nn.Linear(20, 20), nn.Parameter(torch.ones(20))


def _set(table: dict[str, float]) -> None:
    table["b"] = 1.0


def trace(function: Any) -> Own:
    """Follow a forward pass of `function`, then Net's, and its backward pass; return the model."""
    torch.manual_seed(0)
    model = Own().train()
    model.body = function
    type(model).forward = lambda self, x: Net.forward(self, function(self, x))  # type: ignore[method-assign]
    x = torch.rand(4, 20)
    follower, tracer = Follower(model), Tracer([x])
    parameters = list(model.parameters())
    state = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    with tracer.restoring(), follower.following():
        with tracer:
            loss = follower.call(model, x).square().mean()
            torch.autograd.grad(loss, parameters, allow_unused=True)
        tracer.trace([loss], parameters)
    assert (random.getstate(), str(np.random.get_state())) == state[1:]
    return model


@pytest.mark.parametrize("name", ALLOWED)
def test_it_may_be_captured(name: str):
    model = trace(ALLOWED[name])
    assert model.n == 0
    assert model.items == [1.0]


@pytest.mark.parametrize("reason", REFUSED)
def test_it_is_refused_before_it_happens(reason: str):
    generators = random.getstate(), str(np.random.get_state())
    settings, calls = dict(SETTINGS), CountsBackward.calls
    with pytest.raises(CannotCaptureError) as caught:
        trace(REFUSED[reason])
    assert reason in str(caught.value)
    assert (random.getstate(), str(np.random.get_state())) == generators
    assert settings == SETTINGS
    assert CountsBackward.calls == calls
    assert mutable_default.__defaults__ == ([],)
    assert not hasattr(Own, "count")


def test_a_refusal_names_the_line():
    with pytest.raises(
        CannotCaptureError, match=rf"stores sets .last of Own \(test_follow.py:{stores.__code__.co_firstlineno + 1}\)"
    ):
        trace(stores)


def test_the_profiler_of_somebody_else_is_left_in_place():
    import sys

    def profile(*_: Any) -> None:
        pass

    sys.setprofile(profile)
    try:
        trace(ALLOWED["map"])
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
