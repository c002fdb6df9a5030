"""What people write into models, losses and callbacks: the fast engine leaves everything as eager does, or says why not.

Each example is run by both engines. `same` compares the losses, the validation, the weights and buffers, the optimizer,
the attributes of model and loss, and the states of the generators, bit by bit.
"""

import contextlib
import copy
import dataclasses
import io
import itertools
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.differences import differences, flatten, hashed
from onecycle import Callback, DataBunch, GradientClip, Learner, accuracy

pytestmark = pytest.mark.slow  # most run over 600 steps, as users' fits do
LONG = 40  # epochs of 16 steps: 640 steps, so that "auto" captures
UNREADABLE = ("invalid python storage", "proper Tensor", "torch._C", "aten::", "0x", "\n", "g2")


def rows(count: int = 128, width: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def table() -> DataBunch:
    return DataBunch.create(rows(), rows(32, seed=1), bs=8, seed=3)


def sequences() -> DataBunch:
    x = torch.randn(160, 6, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0, 0] > 0).long()
    return DataBunch.create((x[:128], y[:128]), (x[128:], y[128:]), bs=8, seed=3)


@dataclass
class Ran:
    """A learner that has trained, what it left behind, and the lines it showed."""

    learn: Learner
    values: dict[str, Any]
    lines: list[str]

    @property
    def captured(self) -> bool:
        return self.learn.engine.captured is not None

    @property
    def reason(self) -> str | None:
        return self.learn.engine.fallback_reason


def ran(
    make: Callable[[], nn.Module],
    engine: str,
    data: Callable[[], DataBunch] = table,
    epochs: int = 3,
    loss: Callable[[], Any] | None = None,
    callbacks: Callable[[], list[Callback]] = list,
    before: Callable[[], None] = lambda: None,
    **options: Any,
) -> Ran:
    before()
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    model, loss_func, values, output = make(), loss() if loss else None, {}, io.StringIO()
    made = callbacks()
    with contextlib.redirect_stdout(output):
        learn = Learner(data(), model, loss_func, engine=engine, callbacks=made, **options)
        for fit in (learn.fit_one_cycle, learn.fit):
            fit(epochs if fit == learn.fit_one_cycle else 2, 1e-2)
            record = learn.recorder.record
            values |= {
                f"{fit.__name__} {name}": getattr(record, name) for name in ("batch_losses", "val_losses", "metrics")
            }
        values["validate"] = learn.validate()
    values["python's generator"] = hashed(repr(random.getstate()))
    values["numpy's generator"] = hashed(repr(np.random.get_state(legacy=False)))
    values["torch's generator"] = hashed(torch.get_rng_state().numpy().tobytes())
    for name, value in (("model", model), ("loss", loss_func), ("callbacks", made), ("opt", learn.opt.state_dict())):
        flatten(name, value, values, module=__name__)
    return Ran(learn, values, output.getvalue().splitlines())


def same(make: Callable[[], nn.Module], engine: str = "fast", **options: Any) -> Ran:
    """Train with both engines, see that all is the same, and that what is eager says so; return the other one's."""
    eager, other = ran(make, "eager", **options), ran(make, engine, **options)
    assert differences(eager.values, other.values) == []
    assert other.captured or other.reason is not None
    if other.reason is not None:
        assert any(other.reason in line for line in other.lines if line.startswith("engine: eager, because"))
        assert not any(text in other.reason for text in UNREADABLE), other.reason
    return other


class Net(nn.Module):
    """What the examples derive from."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x)


# --- buffers that forward writes to -----------------------------------------------------------------------------------


class WithBuffers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("n", torch.zeros(()))


class Rebound(WithBuffers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.lin(x - self.mean)


class InPlace(WithBuffers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.mean(0).detach(), alpha=0.1)
        return self.lin(x - self.mean)


class PlusEquals(WithBuffers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.n += 1
        return self.lin(x) * (1 + 0.001 * self.n)


class ReboundAndUsed(WithBuffers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.n = self.n + 1
        return self.lin(x) * (1 + 0.001 * self.n)


class ReboundAndKept(WithBuffers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.n = self.n + 1
        return self.lin(x)


class DataAssigned(WithBuffers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean.data = 0.9 * self.mean.data + 0.1 * x.mean(0).detach()
        return self.lin(x - self.mean)


@pytest.mark.parametrize("model", [Rebound, InPlace, PlusEquals, ReboundAndUsed, ReboundAndKept, DataAssigned])
@pytest.mark.parametrize("nested", [False, True])
def test_buffers_that_forward_writes_to(model: type[Net], nested: bool):
    same((lambda: nn.Sequential(nn.Identity(), model())) if nested else model)


def test_a_counter_in_a_buffer_counts_every_step_of_a_long_fit():
    learn = same(ReboundAndKept, "auto", epochs=LONG).learn
    assert int(learn.model.n) == 16 * (LONG + 2)


class CountingLoss(nn.Module):
    def __init__(self, rebind: bool) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(()))
        self.rebind = rebind

    def forward(self, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.rebind:
            self.n = self.n + 1
        else:
            self.n += 1
        return F.cross_entropy(p, y)


@pytest.mark.parametrize("rebind", [True, False])
def test_buffers_of_a_loss(rebind: bool):
    same(Net, loss=lambda: CountingLoss(rebind))


# --- what callbacks change between steps ------------------------------------------------------------------------------


class Tempered(Net):
    def __init__(self) -> None:
        super().__init__()
        self.tau, self.drop, self.bn = 5.0, nn.Dropout(0.5), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.drop(self.lin(x))) / self.tau


class TauPerStep(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        fit.model.tau = max(0.5, 5.0 - 0.2 * fit.iteration)


class TauAfterStep(Callback):
    def on_batch_end(self, fit: Any) -> None:
        fit.model.tau = max(0.5, 5.0 - 0.2 * fit.iteration)


class TauPerEpoch(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        fit.model.tau = 5.0 / (1 + fit.epoch)


class TauAfterEpoch(Callback):
    def on_epoch_end(self, fit: Any) -> None:
        fit.model.tau = 5.0 / (2 + fit.epoch)


class TauOnce(Callback):
    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration == 20:
            fit.model.tau = 1.0


class DropoutPerStep(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        fit.model.drop.p = max(0.0, 0.5 - 0.02 * fit.iteration)


class MomentumPerStep(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        fit.model.bn.momentum = 0.5 / (1 + fit.iteration)


class EvalInMidFit(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        if fit.iteration >= 20:
            fit.model.bn.eval()


CHANGES = [TauPerStep, TauAfterStep, TauPerEpoch, TauAfterEpoch, TauOnce, DropoutPerStep, MomentumPerStep, EvalInMidFit]


@pytest.mark.parametrize("callback", CHANGES)
def test_what_a_callback_changes(callback: type[Callback]):
    same(Tempered, callbacks=lambda: [callback()])


@pytest.mark.parametrize("callback", [TauPerStep, TauPerEpoch, DropoutPerStep])
def test_what_a_callback_changes_in_a_long_fit(callback: type[Callback]):
    same(Tempered, "auto", epochs=LONG, callbacks=lambda: [callback()])


class Penalized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = 0.0

    def forward(self, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(p, y) + self.beta * p.pow(2).mean()


class BetaPerStep(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        LOSS.holder.beta = min(1.0, fit.iteration / 30)


LOSS = SimpleNamespace(holder=None)


def penalized() -> Penalized:
    LOSS.holder = Penalized()
    return LOSS.holder


@pytest.mark.parametrize(("engine", "epochs"), [("fast", 3), ("auto", LONG)])
def test_the_weight_in_a_loss_that_a_callback_changes(engine: str, epochs: int):
    same(Net, engine, epochs=epochs, loss=penalized, callbacks=lambda: [BetaPerStep()])


def test_a_callback_that_only_reads_does_not_prevent_capturing():
    assert same(Net, callbacks=lambda: [GradientClip(0.1)]).captured


# --- what is read, and where it lives ---------------------------------------------------------------------------------

CONFIG: dict[str, float] = {"t": 5.0}
LIST = [5.0]


class ClassAttribute(Net):
    tau = 5.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.tau


class ByProperty(Net):
    @property
    def tau(self) -> float:
        return CONFIG["t"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.tau


class ByMethod(Net):
    def tau(self) -> float:
        return CONFIG["t"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.tau()


class ByStaticMethod(Net):
    @staticmethod
    def tau() -> float:
        return CONFIG["t"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.tau()


class ByClassMethod(Net):
    scale = 5.0

    @classmethod
    def tau(cls) -> float:
        return cls.scale * CONFIG["t"] / 5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.tau()


class NumPyAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.w = np.array([5.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / float(self.w[0])


class HeldFunction(Net):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.lin(x))


class OnlyFunction(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def scaled(x: torch.Tensor) -> torch.Tensor:
    return x / LIST[0]


class Settings:
    scale = 5.0


class GlobalClass(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / Settings.scale


class SettingsObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.settings.scale


class Schedule:
    def __init__(self) -> None:
        self.epoch = 0.0

    @property
    def value(self) -> float:
        return CONFIG["t"] / (1 + self.epoch)


class SettingsProperty(Net):
    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.schedule.value


class Environment(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / float(os.environ.get("ONECYCLE_TEST_TAU", "5"))


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: float = 5.0


class FrozenSettings(Net):
    def __init__(self) -> None:
        super().__init__()
        self.settings = Frozen()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / self.settings.scale


READERS: dict[str, Callable[[], nn.Module]] = {
    "class attribute": ClassAttribute,
    "property": ByProperty,
    "method": ByMethod,
    "static method": ByStaticMethod,
    "class method": ByClassMethod,
    "NumPy attribute": NumPyAttribute,
    "lambda": lambda: HeldFunction(lambda h: h / LIST[0]),
    "function": lambda: HeldFunction(scaled),
    "Lambda layer": lambda: nn.Sequential(nn.Linear(8, 3), OnlyFunction(scaled)),
    "global class": GlobalClass,
    "settings object": SettingsObject,
    "settings property": SettingsProperty,
    "frozen settings": FrozenSettings,
    "environment": Environment,
}


def set_everywhere(value: float, model: nn.Module | None = None) -> None:
    CONFIG["t"] = LIST[0] = ClassAttribute.tau = ByClassMethod.scale = Settings.scale = value
    os.environ["ONECYCLE_TEST_TAU"] = str(value)
    if isinstance(model, NumPyAttribute):
        model.w[0] = value
    if isinstance(model, FrozenSettings):
        model.settings = Frozen(value)


class SetPerEpoch(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        set_everywhere(5.0 / (1 + fit.epoch), fit.model)


class SetPerStep(Callback):
    def on_batch_end(self, fit: Any) -> None:
        set_everywhere(1.0 + fit.iteration % 5, fit.model)


@pytest.fixture(autouse=True)
def settings_as_they_were(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONECYCLE_TEST_TAU", "5")
    yield
    set_everywhere(5.0)


@pytest.mark.parametrize("callback", [SetPerEpoch, SetPerStep])
@pytest.mark.parametrize("model", READERS.values(), ids=READERS)
def test_what_forward_reads_and_a_callback_changes(model: Callable[[], nn.Module], callback: type[Callback]):
    same(model, callbacks=lambda: [callback()], before=lambda: set_everywhere(5.0))


@pytest.mark.parametrize("model", READERS.values(), ids=READERS)
def test_what_forward_reads_and_is_changed_between_fits(model: Callable[[], nn.Module]):
    left = []
    for engine in ("eager", "fast"):
        set_everywhere(5.0)
        torch.manual_seed(3)
        learn = Learner(table(), model(), engine=engine, silent=True)
        learn.fit(2, 1e-2)
        set_everywhere(2.0, learn.model)
        learn.fit(2, 1e-2)
        left.append((learn.recorder.record.batch_losses, learn.recorder.record.val_losses))
    assert left[0] == left[1]


class Deque(Net):
    def __init__(self) -> None:
        super().__init__()
        self.bank: deque[torch.Tensor] = deque(maxlen=4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.bank.append(x.mean(0).detach())
        return self.lin(x - torch.stack(list(self.bank)).mean(0) if self.bank else x)


class DequeKeptOnly(Deque):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.bank.append(x.mean(0).detach())
        return self.lin(x)


class ListKeptOnly(Net):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(self.seen))
        return self.lin(x)


class DictCounts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.counts = {"calls": 0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.counts["calls"] += 1
        return self.lin(x) * (1 + 0.01 * (self.counts["calls"] % 3))


class History:
    def __init__(self) -> None:
        self.n, self.values = 0, deque[int]()

    def add(self, value: int) -> None:
        self.n += value
        self.values.append(value)


class CounterObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.history = History()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.history.add(1)
        return self.lin(x)


@pytest.mark.parametrize("model", [Deque, DequeKeptOnly, ListKeptOnly, DictCounts, CounterObject])
@pytest.mark.parametrize(("engine", "epochs"), [("fast", 3), ("auto", LONG)])
def test_containers_that_forward_changes(model: type[Net], engine: str, epochs: int):
    same(model, engine, epochs=epochs)


class HookInMidFit(Callback):
    def __init__(self, register: Callable[[nn.Module], Any], at: int) -> None:
        self.register, self.at = register, at

    def on_batch_begin(self, fit: Any) -> None:
        if fit.iteration == self.at:
            self.register(fit.model.lin)


SEEN: list[int] = []
HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda layer: layer.register_forward_hook(lambda module, args, out: out * 0.5),
    "forward, which counts": lambda layer: layer.register_forward_hook(lambda module, args, out: SEEN.append(1)),
    "before forward": lambda layer: layer.register_forward_pre_hook(lambda module, args: (args[0] * 0.5,)),
    "backward": lambda layer: layer.register_full_backward_hook(lambda module, grads, _: None),
    "of a parameter": lambda layer: layer.weight.register_hook(lambda grad: grad * 0.5),
    "after accumulating": lambda layer: layer.weight.register_post_accumulate_grad_hook(lambda p: SEEN.append(1)),
}


@pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")  # the input of the layer needs no gradient
@pytest.mark.parametrize("at", [16, 21])
@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS)
def test_hooks_that_are_registered_in_mid_fit(register: Callable[[nn.Module], Any], at: int):
    counts = []
    for engine in ("eager", "fast"):
        SEEN.clear()
        counts.append((ran(Net, engine, callbacks=lambda: [HookInMidFit(register, at)]), len(SEEN)))
    (eager, seen), (fast, fast_seen) = counts
    assert fast_seen == seen
    assert fast.values["fit batch_losses"] == eager.values["fit batch_losses"]
    assert differences(eager.values, fast.values) == []


learn = {"lr": 1}  # a global that is named as the layer below


class NamedAsAGlobal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.learn = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.learn(x)


def test_a_layer_that_is_named_as_a_global_is_captured():
    assert same(NamedAsAGlobal).captured


# --- randomness -------------------------------------------------------------------------------------------------------


class PythonRandom(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) * (1 + 0.1 * random.random())


class PythonRandomKept(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        random.random()
        return self.lin(x)


class PythonRandomRarely(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) * (0.5 if random.random() < 0.02 else 1.0)


class NumPyRandom(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) * (1 + 0.1 * np.random.rand())


class NumPyRandomKept(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        np.random.rand()
        return self.lin(x)


class EvalNoise(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x if self.training else x + 0.1 * torch.randn_like(x))


class AlwaysDropout(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(F.dropout(x, 0.2))


class EvalPythonRandom(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) * (1.0 if self.training else random.random())


class OwnGenerator(Net):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x + 0.1 * torch.randn(x.shape, generator=self.generator))


RANDOM = [PythonRandom, PythonRandomKept, PythonRandomRarely, NumPyRandom, NumPyRandomKept]
RANDOM += [EvalNoise, AlwaysDropout, EvalPythonRandom, OwnGenerator]


@pytest.mark.parametrize("model", RANDOM)
@pytest.mark.parametrize(("engine", "epochs"), [("fast", 3), ("auto", LONG)])
def test_randomness_in_forward(model: type[Net], engine: str, epochs: int):
    same(model, engine, epochs=epochs)


def python_random_loss(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(p, y) * (1 + 0.1 * random.random())


def torch_random_loss(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(p, y) + 0.1 * (p * torch.rand_like(p)).mean()


class CountingFunction:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return F.cross_entropy(p, y)


def closure_that_counts() -> Callable[..., torch.Tensor]:
    calls = itertools.count()

    def loss(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(p, y) * (1 + 0.01 * (next(calls) % 3))

    return loss


LOSSES: dict[str, Callable[[], Any]] = {
    "Python's generator": lambda: python_random_loss,
    "torch's generator": lambda: torch_random_loss,
    "counts": CountingFunction,
    "closure": closure_that_counts,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_that_draw_or_count(loss: Callable[[], Any]):
    same(Net, loss=loss)


class OnValues(Net):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.drop, self.noise = 0, nn.Dropout(0.3), 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.noise = random.random() + np.random.rand()
        h = self.drop(self.lin(x)) + torch.rand(3) * self.noise
        return h if h.sum() > 0 else -h


def test_a_fit_that_could_not_be_captured_is_as_if_nobody_had_tried():
    assert not same(OnValues, loss=CountingFunction).captured


# --- what must not crash ----------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, kind: str, take: str = "last", **options: Any) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(4, 8, **{"batch_first": True, **options})
        self.out, self.take = nn.Linear(16 if options.get("bidirectional") else options.get("proj_size") or 8, 2), take

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.rnn.batch_first else x.transpose(0, 1)
        out, state = self.rnn(x)
        out = out if self.rnn.batch_first else out.transpose(0, 1)
        if self.take == "state":
            return self.out((state[0] if isinstance(state, tuple) else state)[-1])
        return self.out(out[:, -1] if self.take == "last" else out.mean(1))


RECURRENT: dict[str, dict[str, Any]] = {
    "one layer": {},
    "its state": {"take": "state"},
    "its mean": {"take": "mean"},
    "without a bias": {"bias": False},
    "two layers": {"num_layers": 2},
    "two layers with dropout": {"num_layers": 2, "dropout": 0.2},
    "in both directions": {"bidirectional": True},
    "time first": {"batch_first": False},
}


@pytest.mark.parametrize("options", RECURRENT.values(), ids=RECURRENT)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_are_captured(kind: str, options: dict[str, Any]):
    assert same(lambda: Recurrent(kind, **options), data=sequences).captured


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_are_captured_by_default_in_a_long_fit(kind: str):
    make = lambda: Recurrent(kind, num_layers=2, dropout=0.2)  # noqa: E731
    assert same(make, "auto", data=sequences, epochs=LONG, metrics=accuracy).captured


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_a_projected_lstm_is_as_eager_leaves_it():
    same(lambda: Recurrent("LSTM", proj_size=4), data=sequences)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(len(x), 8)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return self.out(h)


def test_lstm_cells_are_captured():
    assert same(Cells, data=sequences).captured


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.pre, self.out, self.reentrant = nn.Linear(8, 8), nn.Linear(16, 3), reentrant
        self.inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(checkpoint(self.inner, self.pre(x), use_reentrant=self.reentrant))


@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")  # in validation
@pytest.mark.parametrize(("engine", "epochs"), [("fast", 3), ("auto", LONG)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant: bool, dropout: float, engine: str, epochs: int):
    other = same(lambda: Checkpointed(reentrant, dropout), engine, epochs=epochs)
    if other.reason is not None:
        assert "checkpoint" in other.reason
        assert "other numbers" not in other.reason


def inner() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh())


SCRIPTED: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(nn.Sequential(inner(), nn.Linear(8, 3))),
    "traced": lambda: torch.jit.trace(nn.Sequential(inner(), nn.Linear(8, 3)), torch.zeros(8, 8)),
    "a scripted part": lambda: nn.Sequential(torch.jit.script(inner()), nn.Linear(8, 3)),
    "a traced part": lambda: nn.Sequential(torch.jit.trace(inner(), torch.zeros(8, 8)), nn.Linear(8, 3)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("engine", "epochs"), [("fast", 3), ("auto", LONG)])
@pytest.mark.parametrize("make", SCRIPTED.values(), ids=SCRIPTED)
def test_scripted_and_traced_models(make: Callable[[], nn.Module], engine: str, epochs: int):
    left = []
    for name in ("eager", "eager", engine):  # TorchScript optimizes after the first calls, for all models of a type
        torch.manual_seed(3)
        learn = Learner(table(), make(), engine=name, silent=True)
        learn.fit_one_cycle(epochs, 1e-2)
        learn.fit(1, 1e-2)
        left.append((learn.recorder.losses, learn.recorder.val_losses, learn.validate()))
    assert left[1] == left[2]
    assert learn.engine.captured is not None or not any(text in learn.engine.fallback_reason for text in UNREADABLE)


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.dead = nn.Linear(8, 3)


@pytest.mark.parametrize(("engine", "epochs"), [("fast", 3), ("auto", LONG)])
@pytest.mark.parametrize("opt_func", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_parameters_that_never_get_a_gradient(opt_func: Any, engine: str, epochs: int):
    left = []
    for name in ("eager", engine):
        torch.manual_seed(3)
        learn = Learner(table(), Unused(), opt_func=opt_func, engine=name, silent=True)
        learn.fit(epochs, 1e-2)
        left.append((learn.recorder.losses, [p.tolist() for p in learn.model.parameters()]))
    assert left[0] == left[1]
    assert learn.engine.captured is not None


# --- reasons ----------------------------------------------------------------------------------------------------------


class Stores(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = self.lin(x)
        return self.hidden


def test_the_reason_for_a_model_that_stores_a_tensor_on_itself():
    other = same(Stores)
    if other.reason is not None:
        assert "counts" not in other.reason
        assert "draws" not in other.reason
        assert "hidden" in other.reason


class OnValue(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lin(x)
        return h if h.mean() > 0 else h * 2


def test_a_reason_names_the_module_and_the_line():
    reason = same(lambda: nn.Sequential(nn.Identity(), OnValue())).reason
    assert reason is not None
    assert "OnValue" in reason
    line = OnValue.forward.__code__.co_firstlineno + 2
    assert f"test_same_as_eager.py:{line}" in reason


class WithCheckpoint(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.lin, x, use_reentrant=False)


def test_the_model_is_trained_after_a_copy_too():
    model = copy.deepcopy(Tempered())
    assert same(lambda: copy.deepcopy(model)).captured


# --- captured validation ----------------------------------------------------------------------------------------------


class Singular(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / (1 + torch.linalg.svdvals(x).sum())


class MatrixNorm(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) / (1 + torch.linalg.matrix_norm(x, 2))


class NuclearNorm(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.lin(x)
        return h / (1 + torch.linalg.matrix_norm(h, "nuc"))


def singular_values(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(p).sum()


@pytest.mark.parametrize("model", [Singular, MatrixNorm, NuclearNorm, Net])
def test_captured_validation_is_bit_equal(model: type[Net]):
    same(model, metrics=[accuracy, singular_values])
