"""What the library tries (a check before a fit, the LR finder) leaves no trace in what models, losses and metrics hold."""

import gc
import itertools
import os
import random
import signal
from array import array
from collections import Counter, OrderedDict, UserList, deque
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner, accuracy
from onecycle.train.snapshot import restoring

# --- models that hold a state -----------------------------------------------------------------------------------------


class BufferInPlace(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return super().forward(x)


class BufferRebound(BufferInPlace):
    def forward(self, x: Tensor) -> Tensor:
        self.n = self.n + 1
        return Net.forward(self, x)


class BufferThatDecides(BufferInPlace):
    """The first call differs, so that an earlier one shows in the weights."""

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return Net.forward(self, x) * (1 + 1 / self.n)


class HiddenState(Net):
    """A state of one batch size, as recurrent models carry it on."""

    def __init__(self) -> None:
        super().__init__()
        self.h = torch.zeros(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        self.h = (0.5 * self.h + torch.relu(self.lin1(x))).detach()
        return self.lin2(torch.relu(self.lin1(x)) + self.h)


class WeightsOfItsOwn(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.lin1.weight.data = self.lin1.weight.data.clamp(-0.1, 0.1)
        self.lin2.bias.data.mul_(0.5)
        return super().forward(x)


class Plain(Net):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.name = 0, ""

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.name += "x"
        self.first = getattr(self, "first", x[0, 0].item())
        return super().forward(x)


class Arrays(Net):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.rebound, self.bytes = np.zeros(3), np.zeros(()), bytearray(b"0")
        self.objects, self.ints = np.array([[0], None], object), array("i", [0])

    def forward(self, x: Tensor) -> Tensor:
        self.inside[1] += len(x)
        self.rebound = self.rebound + 1
        self.bytes += b"1"
        self.objects[0].append(1)
        self.objects[1] = 2
        self.ints[0] += 1
        return super().forward(x)


class Names(list):
    calls = 0


class Containers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.bank, self.log, self.seen = deque(maxlen=2), [], {0}
        self.nested: dict[str, Any] = {"a": [{"n": 0}], "t": torch.zeros(2)}
        self.counts, self.order, self.names, self.user = Counter("a"), OrderedDict(a=1, b=2), Names("a"), UserList([0])
        self.pair = ([0], {"n": 0})

    def forward(self, x: Tensor) -> Tensor:
        self.bank.append(x.mean().item())
        self.log.append(len(self.log))
        self.seen.add(len(self.log))
        self.nested["a"][0]["n"] += 1
        self.nested["t"] += 1
        self.counts["b"] += 1
        self.order.move_to_end("a" if len(self.log) % 2 else "b")
        self.names.calls += 1
        self.names.append("b")
        self.user.append(1)
        self.pair[0].append(1)
        self.pair[1]["n"] += 1
        return super().forward(x)


class Meter:
    def __init__(self) -> None:
        self.n, self.values, self.parent = 0, [], self

    def add(self, value: float) -> None:
        self.n += 1
        self.values.append(value)


class Slots:
    __slots__ = ("n", "seen")

    def __init__(self) -> None:
        self.n, self.seen = 0, []


@dataclass(frozen=True)
class Settings:
    log: list[int] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)


class Objects(Net):
    def __init__(self) -> None:
        super().__init__()
        self.meter, self.slots, self.settings, self.space = Meter(), Slots(), Settings(), SimpleNamespace(n=0)
        self.meters = {"deep": [SimpleNamespace(meter=Meter())]}
        self.add = Meter().add
        self.partly = partial(Meter().add, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        self.meter.add(1.0)
        self.slots.n += 1
        self.slots.seen.append(1)
        self.settings.log.append(1)
        self.settings.meter.add(2.0)
        self.space.n += 1
        self.meters["deep"][0].meter.add(3.0)
        self.add(4.0)
        self.partly()
        return super().forward(x)


class OwnGenerators(Net):
    def __init__(self) -> None:
        super().__init__()
        self.python, self.numpy, self.old = random.Random(1), np.random.default_rng(1), np.random.RandomState(1)
        self.torch, self.draw = torch.Generator().manual_seed(1), random.Random(2).random

    def forward(self, x: Tensor) -> Tensor:
        noise = self.python.random() + self.numpy.normal() + self.old.rand() + self.draw()
        return super().forward(x) + noise * torch.rand(4, generator=self.torch)


class GlobalGenerators(Net):
    """Draws in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        noise = random.random() + np.random.rand()
        return super().forward(x + torch.rand_like(x)) + noise


def counter() -> Any:
    count, log = 0, []

    def call() -> None:
        nonlocal count
        count += 1
        log.append(count)
        call.calls = getattr(call, "calls", 0) + 1

    return call


CALLS, LOG = 0, []


def count_globally(log: list[int] = []) -> None:  # noqa: B006 -- what is to be found
    global CALLS
    CALLS += 1
    LOG.append(CALLS)
    log.append(CALLS)


class Functions(Net):
    made: ClassVar[int] = 0
    log: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.call, self.globally = counter(), count_globally

    def forward(self, x: Tensor) -> Tensor:
        self.call()
        self.globally()
        self.count()
        Slots.calls = getattr(Slots, "calls", 0) + 1  # a class that only the code names
        return super().forward(x)

    @classmethod
    def count(cls) -> None:
        cls.made += 1
        cls.log.append(cls.made)


class Hooks(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lin1.register_forward_hook(Statistics().add)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "hooked"):
            self.lin2.register_forward_hook(Statistics().add)
            self.hooked = True
        return super().forward(x)


class Statistics:
    def __init__(self) -> None:
        self.means: list[float] = []

    def add(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.means.append(output.mean().item())


class Inner(Net):
    """The state is held further down, in modules of torch that count too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"a": nn.Sequential(nn.BatchNorm1d(20, momentum=None), Plain())})

    def forward(self, x: Tensor) -> Tensor:
        return self.body["a"](x) + super().forward(x)


MODELS = [
    *(BufferInPlace, BufferRebound, BufferThatDecides, HiddenState, WeightsOfItsOwn, Plain, Arrays, Containers, Objects),
    *(OwnGenerators, GlobalGenerators, Functions, Hooks, Inner),
]  # fmt: skip
FULL = 48  # rows: three whole batches


def state(value: Any, seen: list[Any] | None = None) -> Any:
    """All that a value holds, as text and plain containers."""
    seen = [] if seen is None else seen
    if any(value is other for other in seen):
        return "again"
    if isinstance(value, int | float | str | bytes | None):
        return value
    seen.append(value)
    if isinstance(value, Tensor):
        return value.tolist(), value.requires_grad, value.grad is None
    if isinstance(value, np.ndarray):
        return [state(item, seen) for item in value.ravel().tolist()]
    if isinstance(value, torch.Generator):
        return hash(str(value.get_state().tolist()))
    if isinstance(value, np.random.Generator):
        return hash(str(value.bit_generator.state))
    if isinstance(value, np.random.RandomState):
        return hash(str(value.get_state()))
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, dict):
        return [(key if isinstance(key, str) else "", state(item, seen)) for key, item in value.items()], state(
            getattr(value, "__dict__", None), seen
        )
    if isinstance(value, list | tuple | deque | set | UserList):
        return [state(item, seen) for item in value], state(getattr(value, "__dict__", None), seen)
    if isinstance(value, array | bytearray):
        return list(value)
    if isinstance(value, partial):
        return state([value.func, value.args], seen)
    if isinstance(value, MethodType) or (hasattr(value, "__self__") and isinstance(value.__self__, random.Random)):
        return state(value.__self__, seen)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return state([cells, value.__dict__, value.__defaults__], seen)
    if isinstance(value, Slots):
        return [value.n, value.seen]
    return (
        state(vars(value), seen) if hasattr(value, "__dict__") and not isinstance(value, type) else type(value).__name__
    )


def whole_state(model: nn.Module) -> list[Any]:
    """The state of a model, of the globals and classes that it may change, and of the global generators."""
    generators = [state(torch.default_generator), hash(str(np.random.get_state())), hash(random.getstate())]
    return [state(model), CALLS, [*LOG], Functions.made, [*Functions.log], getattr(Slots, "calls", 0), generators]


@pytest.fixture(autouse=True)
def fresh_globals() -> None:
    global CALLS
    CALLS, Functions.made = 0, 0
    LOG.clear()
    Functions.log.clear()
    count_globally.__defaults__[0].clear()  # pyright: ignore
    if hasattr(Slots, "calls"):
        del Slots.calls
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


@pytest.fixture
def data() -> DataBunch:
    return DataBunch.create(toy_arrays(FULL), toy_arrays(FULL, seed=1), bs=16, seed=3)


def learner(data: DataBunch, model: nn.Module, **options: Any) -> Learner:
    return Learner(
        data, model, **{"metrics": accuracy, "silent": True, "opt_func": torch.optim.SGD, "wd": 0.0, **options}
    )


@pytest.mark.parametrize("make", MODELS)
def test_a_fit_of_no_epochs_changes_nothing(data: DataBunch, make: type[Net]):
    learn = learner(data, seeded(make()))
    before = whole_state(learn.model.eval())
    learn.fit(0, 0.1)
    assert whole_state(learn.model) == before


@pytest.mark.parametrize("make", MODELS)
def test_a_fit_leaves_what_a_loop_in_torch_leaves(data: DataBunch, make: type[Net]):
    """Two epochs, without a word between them: any trace of a trial would be a difference."""
    start = torch.get_rng_state(), np.random.get_state(), random.getstate()
    learn = learner(data, seeded(make()), engine="eager")
    learn.fit(2, 0.1)
    left = whole_state(learn.model)

    fresh_state(start)
    model, after = seeded(make()), torch.get_rng_state()
    opt = torch.optim.SGD(model.parameters(), 0.1)
    for epoch in range(2):
        model.train()
        torch.manual_seed(learn_seed(learn, epoch))
        for x, y in data.train_dl.epoch(epoch):
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
        model.eval()
        with torch.no_grad():
            for x, _ in data.valid_dl.epoch(0):
                model(x)
    torch.set_rng_state(after)
    assert whole_state(model) == left


def learn_seed(learn: Learner, epoch: int) -> int:
    from onecycle.core.device import derived_seed

    return derived_seed(learn.data.seed, 2, epoch)  # of dropout, as docs/design.md says


def fresh_state(generators: Any) -> None:
    global CALLS
    CALLS, Functions.made = 0, 0
    for log in (LOG, Functions.log, count_globally.__defaults__[0]):  # pyright: ignore
        log.clear()
    if hasattr(Slots, "calls"):
        del Slots.calls
    torch.set_rng_state(generators[0])
    np.random.set_state(generators[1])
    random.setstate(generators[2])


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("end", ["done", "Ctrl-C", "error"])
def test_the_finder_changes_nothing(data: DataBunch, make: type[Net], end: str):
    class Ends(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 3 and end == "Ctrl-C":
                os.kill(os.getpid(), signal.SIGINT)
            if fit.iteration == 3 and end == "error":
                raise ZeroDivisionError

    learn = learner(data, seeded(make()), callbacks=Ends())
    before = whole_state(learn.model)
    if end == "done":
        learn.lr_find(num_it=5)
    else:
        with pytest.raises(KeyboardInterrupt if end == "Ctrl-C" else ZeroDivisionError):
            learn.lr_find(num_it=5)
    assert whole_state(learn.model) == before


@pytest.mark.parametrize("make", MODELS)
def test_a_fit_that_is_refused_changes_nothing(data: DataBunch, make: type[Net]):
    learn = learner(data, seeded(make()), metrics=lambda preds, targets: None)
    before = whole_state(learn.model)
    with pytest.raises(Exception, match="returns None"):
        learn.fit(1, 0.1)
    assert whole_state(learn.model) == before


# --- losses, metrics, callbacks and optimizers ------------------------------------------------------------------------


class MovingLoss:
    """A loss that holds a state of every kind, and is no module."""

    def __init__(self) -> None:
        self.scale, self.log, self.mean, self.meter = 1.0, deque(), np.zeros(2), Meter()
        self.rng = np.random.default_rng(0)

    def __call__(self, preds: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(preds, targets) * (1 + 0.1 * self.rng.random())
        self.scale *= 0.9
        self.log.append(loss.item())
        self.mean += 1
        self.meter.add(1.0)
        return loss

    def method(self, preds: Tensor, targets: Tensor) -> Tensor:
        return self(preds, targets)


@pytest.mark.parametrize("way", ["object", "method", "partial", "lambda"])
def test_the_state_of_a_loss_is_restored(data: DataBunch, way: str):
    loss = MovingLoss()
    given = {"object": loss, "method": loss.method, "partial": partial(loss.method), "lambda": lambda p, y: loss(p, y)}
    learn, before = learner(data, seeded(Net()), loss_func=given[way]), state(loss)
    learn.fit(0, 0.1)
    learn.lr_find(num_it=5)
    assert state(loss) == before


def test_the_state_of_a_metric_is_restored(data: DataBunch):
    class Running:
        def __init__(self) -> None:
            self.values, self.resets = [0.5], 3

        def reset(self) -> None:
            self.values, self.resets = [], self.resets + 1

        def update(self, preds: Tensor, targets: Tensor) -> None:
            self.values.append(preds.mean().item())

        def compute(self) -> float:
            return float(np.mean(self.values))

        def __call__(self, preds: Tensor, targets: Tensor) -> float:
            raise NotImplementedError

    def counts(preds: Tensor, targets: Tensor) -> float:
        meter.add(1.0)
        return 0.0

    running, meter = Running(), Meter()
    learner(data, seeded(Net()), metrics=[running, counts, partial(counts)]).fit(0, 0.1)
    assert (running.values, running.resets, meter.n) == ([0.5], 3, 0)


def test_the_state_of_callbacks_is_restored_after_finding(data: DataBunch):
    class Keeps(Callback):
        def __init__(self) -> None:
            self.bank, self.array, self.meter, self.rng = deque(maxlen=3), np.zeros(2), Meter(), random.Random(1)
            self.mean = torch.zeros(())

        def on_batch_end(self, fit: Any) -> None:
            self.bank.append(self.rng.random())
            self.array += 1
            self.meter.add(1.0)
            self.mean += fit.loss.detach()

    keeps = Keeps()
    before = state(keeps)
    learner(data, seeded(Net()), callbacks=keeps).lr_find(num_it=5)
    assert state(keeps) == before


def test_an_optimizer_with_a_state_of_its_own_is_restored_after_finding(data: DataBunch):
    class Counts(torch.optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, 0.1, momentum=0.9)
            self.steps, self.meter = 0, Meter()

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            self.meter.add(1.0)
            return super().step(closure)

    learn = learner(data, seeded(Net()), opt_func=Counts)
    learn.fit(1, 0.1)
    before = state([learn.opt.torch_opt.state_dict(), learn.opt.torch_opt.steps, learn.opt.torch_opt.meter])
    learn.lr_find(num_it=5)
    assert state([learn.opt.torch_opt.state_dict(), learn.opt.torch_opt.steps, learn.opt.torch_opt.meter]) == before


# --- what the check runs on -------------------------------------------------------------------------------------------


def test_the_check_runs_one_whole_batch_of_each_set():
    class Watch(Net):
        def __init__(self) -> None:
            super().__init__()
            self.sizes = SimpleQueue()  # between threads, which is not restored

        def forward(self, x: Tensor) -> Tensor:
            self.sizes.put(len(x))
            return super().forward(x)

    bunch = DataBunch.create(toy_arrays(FULL), toy_arrays(40, seed=1), bs=16, val_bs=20, seed=3)
    learn = learner(bunch, Watch())
    learn.fit(0, 0.1)
    assert [learn.model.sizes.get(), learn.model.sizes.get()] == [16, 20]
    assert learn.model.sizes.empty()


@pytest.mark.parametrize("where", ["model", "loss", "metric"])
def test_what_cannot_be_restored_is_not_tried(data: DataBunch, where: str):
    class Numbers(Net):
        def __init__(self) -> None:
            super().__init__()
            self.numbers, self.source = itertools.count(), [iter([1, 2])]

        def forward(self, x: Tensor) -> Tensor:
            next(self.numbers)
            return super().forward(x)

    def metric(preds: Tensor, targets: Tensor) -> float:
        return next(values)

    def loss(preds: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(preds, targets) * next(values)

    values = (float(i) for i in range(100))
    options = {"loss": {"loss_func": loss}, "metric": {"metrics": metric}, "model": {}}[where]
    learn = learner(data, Numbers() if where == "model" else Net(), **options)
    learn.fit(0, 0.1)
    assert next(learn.model.numbers if where == "model" else values) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_the_weights_and_buffers_of_a_scripted_model_are_restored(data: DataBunch):
    class Scripted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("n", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.n = self.n + 1
            return self.lin2(torch.relu(self.lin1(x)))

    learn = learner(data, torch.jit.script(seeded(Scripted())))
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    learn.lr_find(num_it=4)
    learn.fit(0, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


def test_the_check_runs_the_forward_that_training_runs(data: DataBunch):
    class Demands(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.lin1(x))
            if hidden.dtype is not torch.bfloat16:
                raise TypeError("not in bfloat16")
            return self.lin2(hidden)

    learn = learner(data, Demands(), precision="bf16")
    learn.fit(1, 0.1)
    learn.lr_find(num_it=3)
    learn.validate()


def test_mixed_dtypes_that_autocast_joins_are_no_error(data: DataBunch):
    x, y = toy_arrays(FULL)
    learner(DataBunch.create((x.half(), y), bs=16, seed=1), Net(), precision="bf16").fit(1, 0.1)


# --- the data are the user's ------------------------------------------------------------------------------------------


class Multiplies(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class Subtracts(Net):
    def forward(self, x: Tensor) -> Tensor:
        x -= 1
        return super().forward(x)


def relu_first() -> nn.Module:
    return nn.Sequential(nn.ReLU(inplace=True), Net())


class Flips(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        fit.xb.neg_()
        fit.yb.zero_()


def loss_that_writes(preds: Tensor, targets: Tensor) -> Tensor:
    loss = F.cross_entropy(preds, targets.clone())
    targets.zero_()
    return loss


def metric_that_writes(preds: Tensor, targets: Tensor) -> Tensor:
    value = (preds.argmax(1) == targets).float().mean()
    targets.zero_()
    preds.detach().zero_()
    return value


@pytest.mark.parametrize("make", [Multiplies, Subtracts, relu_first])
@pytest.mark.parametrize("numpy", [False, True])
def test_what_is_written_to_a_batch_does_not_reach_the_data(make: Any, numpy: bool):
    arrays = [*toy_arrays(FULL), *toy_arrays(FULL + 3, seed=1), *toy_arrays(7, seed=2)]
    arrays = [array.numpy() for array in arrays] if numpy else arrays
    before = [np.asarray(array).copy() for array in arrays]
    x, y, xv, yv, xt, yt = arrays
    data = DataBunch.create((x, y), (xv, yv), (xt, yt), bs=16, seed=1)
    options = {"loss_func": loss_that_writes, "metrics": [metric_that_writes, accuracy], "callbacks": Flips()}
    learn = learner(data, seeded(make()), engine="eager", **options)
    first = learn.validate()
    for _ in range(2):
        assert learn.validate() == first
    predicted = learn.get_preds(xv)[0]
    learn.fit(1, 0.1)
    learn.lr_find(num_it=4)
    for which in ("train", "valid", "test", "fix"):
        learn.validate(which)
        learn.get_preds(which)
        xb, yb = data.one_batch(which)
        xb.zero_()
        yb.zero_()
    learn.predict(xv[0])
    learn.predict_rows(xt)
    assert all(map(np.array_equal, map(np.asarray, arrays), before))
    model = seeded(make())
    with torch.no_grad():
        expected = model(torch.tensor(np.asarray(xv)))  # of a loss of the user, outputs are what is predicted
    assert torch.allclose(predicted, expected, atol=1e-6)


def test_a_model_that_writes_to_its_input_trains_and_validates_as_in_a_loop(data: DataBunch):
    model = seeded(Multiplies())
    opt = torch.optim.SGD(model.parameters(), 0.1)
    for x, y in data.train_dl.epoch(0):
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    with torch.no_grad():
        losses = [F.cross_entropy(model(x), y).item() for x, y in data.valid_dl.epoch(0)]
    learn = learner(data, seeded(Multiplies()), engine="eager")
    learn.fit(1, 0.1)
    assert all(map(torch.equal, learn.model.parameters(), model.parameters()))
    assert learn.recorder.val_losses == pytest.approx([np.mean(losses)], rel=1e-6)


def test_arrays_that_need_no_conversion_are_shared_until_the_fit():
    x, y = (part.numpy() for part in toy_arrays(FULL))
    data = DataBunch.create((x, y), bs=16, seed=1)
    x[:] = 7
    assert (data.one_batch()[0] == 7).all()


def test_an_error_is_explained_without_a_trace(data: DataBunch):
    class Breaks(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if self.training and self.count == 2:
                random.random()
                raise RuntimeError("mine")
            return super().forward(x)

    learn = learner(data, Breaks())
    expected = random.Random(5)
    expected.random()  # the one before the error
    random.seed(5)
    with pytest.raises(RuntimeError, match="mine"):
        learn.fit(1, 0.1)
    assert learn.model.count == 2
    assert random.getstate() == expected.getstate()


# --- what restoring leaves alone --------------------------------------------------------------------------------------


def test_data_and_threads_are_left_alone():
    import logging
    import queue

    class Rows(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.reads = 0

    model = Net()
    model.rows, model.queue, model.logger = Rows(), queue.Queue(), logging.getLogger("of a model")
    with restoring(model):
        model.rows.reads += 1
        model.queue.put(1)
        model.logger.setLevel(logging.ERROR)
    assert (model.rows.reads, model.queue.get(timeout=1), model.logger.level) == (1, 1, logging.ERROR)


def test_copies_are_freed_when_the_block_ends():
    model = Plain()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(20):
            with restoring(model):
                model(torch.ones(2, 20))
        assert gc.collect() == 0
        assert len(gc.get_objects()) < before + 100
    finally:
        gc.enable()


def test_each_part_is_restored_although_another_fails():
    model = Plain()
    model.array = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"), restoring(model):
        model(torch.ones(2, 20))
        model.array[0] = 1
        model.array.flags.writeable = False
    assert model.count == 0


@pytest.mark.parametrize("make", MODELS)
def test_the_comparison_sees_what_a_model_changes(make: type[Net]):
    model = seeded(make()).eval()
    before = whole_state(model)
    model(torch.ones(16, 20))
    assert whole_state(model) != before
