"""Fits with state of their own, as users write them, for `resumes.py`."""

import copy
import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, TensorDataset

from onecycle import MLP, Callback, DataBunch, Learner, accuracy

EPOCHS, ROWS, BATCH = 3, 200, 16
X = torch.randn(ROWS, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(ROWS) % 4
Case = dict[str, Any]
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    """Enter a case by its name."""
    CASES[make.__name__.replace("_", " ")] = make
    return make


class Stop(Callback):
    """Stops the fit after so many steps, as Ctrl-C does."""

    at: int | None = None

    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration + 1 == self.at:
            fit.stop("interrupted")


def learner(name: str) -> Learner:
    """A learner of a case, all of it made anew."""
    found = CASES[name]()
    data = found.pop("data", None) or DataBunch.create((X, Y), (X[:50], Y[:50]), bs=BATCH, seed=1, device="cpu")
    callbacks = [*found.pop("callbacks", ()), Stop()]
    model = found.pop("model", None) or MLP(20, 8, 4)
    return Learner(data, model, silent=True, callbacks=callbacks, **found)


def made(name: str) -> Learner:
    """The same from the same weights."""
    torch.manual_seed(0)
    return learner(name)


def plain_and_resumed(name: str, at: int, folder: Path) -> tuple[Learner, Learner]:
    """A case trained without a stop, and one that is stopped after `at` steps and resumed by another learner."""
    plain = made(name)
    plain.fit(2, 1e-2)
    Stop.at = at
    made(name).fit(2, 1e-2, checkpoint=folder)
    Stop.at, resumed = None, made(name)
    resumed.resume(folder)
    return plain, resumed


# --- optimizers -------------------------------------------------------------------------------------------------------


class Base(Optimizer):
    """Steps of lr times what `scaled` returns."""

    def __init__(self, params: Any, lr: float = 1e-3, **settings: Any) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": 0.0, **settings})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            self.before(group)
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(self.scaled(p, self.state[p], group), alpha=-group["lr"])

    def before(self, group: dict[str, Any]) -> None: ...

    def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        return p.grad


@case
def numbers_in_groups() -> Case:
    class Schedule(Base):
        def __init__(self, params: Any, lr: float = 1e-3) -> None:
            super().__init__(params, lr, k=0, weight_sum=0.0, lr_max=-1.0, train_mode=True)

        def before(self, group: dict[str, Any]) -> None:
            group["k"] += 1
            group["lr_max"] = max(group["lr_max"], group["lr"])
            group["weight_sum"] += group["lr_max"] ** 2

        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            z = state.setdefault("z", p.clone())
            z.sub_(p.grad, alpha=group["lr"])
            return (p - z) * (group["lr"] ** 2 / group["weight_sum"]) / group["lr"]

    return {"opt_func": Schedule}


@case
def an_estimated_distance() -> Case:
    class Distance(Base):
        def __init__(self, params: Any, lr: float = 1e-3) -> None:
            super().__init__(params, lr, d=1e-6, d0=1e-6, growth_rate=float("inf"), numerator=0.0)

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            super().step()
            total = sum(
                float((p.grad * (self.state[p]["x0"] - p)).sum()) for g in self.param_groups for p in g["params"]
            )
            for group in self.param_groups:
                group["numerator"] = 0.9 * group["numerator"] + total
                group["d"] = min(max(group["d"], abs(group["numerator"])), group["d"] * group["growth_rate"])

        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            state.setdefault("x0", p.clone())
            return p.grad * (1 + group["d"])

    return {"opt_func": Distance}


@case
def float64_state() -> Case:
    class Double(Base):
        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            state["sum"] = state.get("sum", torch.zeros_like(p, dtype=torch.float64)) * 0.9 + p.grad.double()
            state["count"] = state.get("count", torch.zeros((), dtype=torch.int64)) + 2**53 + 1
            return state["sum"].float() * (1 + int(state["count"]) % 7)

    return {"opt_func": Double}


@case
def half_and_complex_state() -> Case:
    class Half(Base):
        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            state["b"] = state.get("b", torch.zeros_like(p, dtype=torch.bfloat16)) * 0.9 + p.grad.bfloat16()
            state["c"] = state.get("c", torch.zeros_like(p, dtype=torch.complex128)) * 1j + p.grad
            state["n"] = state.get("n", 2**70) + 1
            state["mask"] = p.grad > 0
            return state["b"].float() + state["c"].real.float() * (state["n"] % 3) * state["mask"]

    return {"opt_func": Half}


@case
def infinite_values() -> Case:
    class Infinite(Base):
        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            state["n"] = state.get("n", 0) + 1
            least = state.get("least", float("inf"))
            state["least"] = min(least, p.grad.norm().item() if state["n"] > 20 else float("inf"))
            state.setdefault("nan", float("nan"))
            state.setdefault("t", torch.full_like(p, float("inf")))
            return p.grad * (2 if state["least"] == float("inf") and state["nan"] != state["nan"] else 1)

    return {"opt_func": Infinite}


@case
def lists_of_gradients() -> Case:
    class History(Base):
        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            state["last"] = [*state.get("last", []), p.grad.clone()][-3:]
            state.setdefault("deque", deque(maxlen=4)).append(p.grad.norm())
            state.setdefault("nested", {"a": {1: None}})["a"][1] = (p.grad.sum(), True, None)
            return sum(state["last"]) * sum(state["deque"])

    return {"opt_func": History}


@case
def global_state() -> Case:
    class Shared(Base):
        def before(self, group: dict[str, Any]) -> None:
            self.state["all"]["n"] = self.state["all"].get("n", 0) + 1

        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            return p.grad / self.state["all"]["n"]

    return {"opt_func": Shared}


@case
def attributes_of_the_optimizer() -> Case:
    class Own(Base):
        def __init__(self, params: Any, lr: float = 1e-3) -> None:
            super().__init__(params, lr)
            self.t, self.noise, self.sums = 0, torch.Generator().manual_seed(3), {}
            self.anchor = [p.detach().clone() for g in self.param_groups for p in g["params"]]

        def before(self, group: dict[str, Any]) -> None:
            self.t += 1

        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            self.sums[id(p)] = self.sums.get(id(p), 0) + p.grad
            return self.sums[id(p)] / self.t + 0.01 * torch.randn(p.shape, generator=self.noise) + self.anchor[0].mean()

    return {"opt_func": Own}


@case
def a_lookahead_around_adam() -> Case:
    class Lookahead(Optimizer):
        def __init__(self, params: Any, lr: float = 1e-3) -> None:
            self.base = torch.optim.Adam(params, lr=lr)
            super().__init__(self.base.param_groups, {"lr": lr})
            self.param_groups, self.k = self.base.param_groups, 0

        def step(self, closure: Any = None) -> None:
            self.base.step()
            self.k += 1
            for group in self.param_groups:
                for p in group["params"]:
                    slow = self.state[p].setdefault("slow", p.detach().clone())
                    if self.k % 5 == 0:
                        slow.add_(p.detach() - slow, alpha=0.5)
                        p.data.copy_(slow)

    return {"opt_func": Lookahead}


@case
def an_iterator_in_the_optimizer() -> Case:
    class Cycles(Base):
        def __init__(self, params: Any, lr: float = 1e-3) -> None:
            super().__init__(params, lr)
            self.signs = itertools.cycle([1.0, 0.5, 0.25])

        def scaled(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
            return p.grad * next(self.signs)

    return {"opt_func": Cycles}


@case
def a_subclass_of_Adam_with_more() -> Case:
    class Clipped(torch.optim.Adam):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state["mean norm"] = 0.9 * state.get("mean norm", 0.0) + 0.1 * p.grad.norm().item()
                    p.grad.mul_(min(1.0, state["mean norm"] / (p.grad.norm().item() + 1e-9)))
                    if len(state) == 1:
                        state |= {
                            "step": torch.tensor(0.0),
                            "exp_avg": torch.zeros_like(p),
                            "exp_avg_sq": torch.zeros_like(p),
                        }
            super().step()

    return {"opt_func": Clipped}


# --- callbacks --------------------------------------------------------------------------------------------------------


def with_callback(name: str, make: Callable[[], Callback]) -> None:
    """Enter a case of a callback."""
    CASES[name] = lambda: {"callbacks": [make()]}


class Decay(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        fit.opt.set_wd(0.1 * fit.epoch)


class Eps(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        for group in fit.opt.groups:
            group.update(eps=10.0 ** (fit.epoch - 8), betas=(group["betas"][0], 0.9 + 0.01 * fit.epoch))


class Unfreeze(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        for p in list(fit.model.parameters())[:2]:
            p.requires_grad_(fit.epoch != 1)


class FrozenNorm(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        for module in fit.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()


class MixUp(Callback):
    def on_batch_begin(self, fit: Any) -> None:
        share = np.random.beta(0.4, 0.4)
        fit.xb = share * fit.xb + (1 - share) * fit.xb[torch.randperm(len(fit.xb))]
        if random.random() < 0.3:
            fit.xb = fit.xb * random.gauss(1, 0.1)


class OwnGenerators(Callback):
    def __init__(self) -> None:
        self.torch, self.numpy = torch.Generator().manual_seed(1), np.random.default_rng(2)
        self.old, self.python = np.random.RandomState(3), random.Random(4)

    def on_batch_begin(self, fit: Any) -> None:
        noise = torch.randn(fit.xb.shape, generator=self.torch) * self.numpy.normal() + self.old.normal()
        fit.xb = fit.xb + 0.1 * noise * self.python.gauss(0, 1)


class OwnEMA(Callback):
    def on_train_begin(self, fit: Any) -> None:
        self.shadow = copy.deepcopy(fit.model)

    def on_batch_end(self, fit: Any) -> None:
        for mean, p in zip(self.shadow.parameters(), fit.model.parameters(), strict=True):
            mean.data.mul_(0.9).add_(p.data, alpha=0.1)

    def on_epoch_end(self, fit: Any) -> None:
        fit.model.load_state_dict(self.shadow.state_dict())


class Anchor(Callback):
    """Pulls towards the weights that the fit began with."""

    def on_train_begin(self, fit: Any) -> None:
        self.first = {name: p.detach().clone() for name, p in fit.model.named_parameters()}

    def on_backward_end(self, fit: Any) -> None:
        for name, p in fit.model.named_parameters():
            p.grad.add_(p.detach() - self.first[name], alpha=0.1)


class Warms(Callback):
    """Adds noise to the weights, once."""

    def on_train_begin(self, fit: Any) -> None:
        with torch.no_grad():
            for p in fit.model.parameters():
                p.add_(0.05)


class GradientMean(Callback):
    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self.count = 0

    def on_backward_end(self, fit: Any) -> None:
        self.count += 1
        for name, p in fit.model.named_parameters():
            self.means[name] = 0.9 * self.means.get(name, 0) + p.grad
            p.grad.copy_(self.means[name] / self.count)


class Plateau(Callback):
    """Lowers the rate by a schedule of its own, and counts."""

    best, bad = float("inf"), 0

    def on_batch_end(self, fit: Any) -> None:
        loss = float(fit.loss)
        self.best, self.bad = min(self.best, loss), 0 if loss < self.best else self.bad + 1

    def on_batch_begin(self, fit: Any) -> None:
        for group in fit.opt.groups:
            group["lr"] *= 0.9 ** min(self.bad, 5)


class LazyGenerator(Callback):
    rng: Any = None

    def on_batch_begin(self, fit: Any) -> None:
        self.rng = self.rng or np.random.default_rng(5)
        fit.xb = fit.xb + 0.1 * float(self.rng.normal())


class LazyModel(Callback):
    teacher: Any = None

    def on_batch_begin(self, fit: Any) -> None:
        self.teacher = self.teacher or copy.deepcopy(fit.model)
        fit.xb = fit.xb + 0.1 * self.teacher(fit.xb).detach().mean()


class Iterates(Callback):
    def __init__(self) -> None:
        self.scales = iter(np.random.default_rng(6).normal(size=1000).tolist())

    def on_batch_begin(self, fit: Any) -> None:
        fit.xb = fit.xb * next(self.scales)


class OutOfTheSystem(Callback):
    def __init__(self) -> None:
        self.rng = random.SystemRandom()

    def on_batch_begin(self, fit: Any) -> None:
        fit.xb = fit.xb * self.rng.random()


class Labels(Callback):
    """Writes to the data set."""

    def on_epoch_end(self, fit: Any) -> None:
        self.data.train_dl.tensors[1][fit.epoch * 10 : fit.epoch * 10 + 10] = 1


class WithState(Callback):
    def __init__(self) -> None:
        self.n, self.least = 0, float("inf")

    def on_batch_begin(self, fit: Any) -> None:
        self.n += 1
        fit.xb = fit.xb / (self.n if self.least == float("inf") else 1)

    def state(self) -> dict[str, Any]:
        return {"n": self.n, "least": self.least}

    def load_state(self, state: dict[str, Any]) -> None:
        self.n, self.least = state["n"], state["least"]


def closure_counter() -> Callback:
    count = 0

    class Counts(Callback):
        def on_batch_begin(self, fit: Any) -> None:
            nonlocal count
            count += 1
            fit.xb = fit.xb / count

    return Counts()


for kind in (
    *(Decay, Eps, Unfreeze, MixUp, OwnGenerators, OwnEMA, Anchor, Warms, GradientMean, Plateau, LazyGenerator),
    *(LazyModel, Iterates, OutOfTheSystem, WithState),
):
    with_callback(f"callback {kind.__name__}", kind)
with_callback("callback of a closure", closure_counter)
CASES["two callbacks of one class"] = lambda: {"callbacks": [GradientMean(), GradientMean()]}


@case
def a_callback_that_writes_labels() -> Case:
    data = DataBunch.create((X.clone(), Y.clone()), (X[:50], Y[:50]), bs=BATCH, seed=1, device="cpu")
    callback = Labels()
    callback.data = data
    return {"data": data, "callbacks": [callback]}


# --- models and losses ------------------------------------------------------------------------------------------------


class Layers(nn.Module):
    """Two layers with something between them."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.norm, self.lin2 = nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.between(torch.relu(self.norm(self.lin1(x)))))

    def between(self, x: Tensor) -> Tensor:
        return x


CASES["callback FrozenNorm"] = lambda: {"model": Layers(), "callbacks": [FrozenNorm()]}


@case
def a_model_that_counts() -> Case:
    class Counts(Layers):
        calls = 0

        def between(self, x: Tensor) -> Tensor:
            self.calls += self.training
            return x / (1 + self.calls / 10)

    return {"model": Counts()}


@case
def a_model_with_a_memory() -> Case:
    class Remembers(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.bank, self.last, self.seen = deque(maxlen=3), None, defaultdict(int)

        def between(self, x: Tensor) -> Tensor:
            if self.training:
                self.bank.append(x.detach().mean(0))
                self.last = x.detach().mean() if self.last is None else 0.9 * self.last + 0.1 * x.detach().mean()
                self.seen[int(x.argmax()) % 3] += 1
            return x + sum(self.bank) * self.last / (1 + self.seen[0]) if self.bank else x

    return {"model": Remembers()}


@case
def a_model_with_a_generator() -> Case:
    class Noise(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.rng, self.numpy = torch.Generator().manual_seed(7), np.random.default_rng()
            self.numpy = np.random.default_rng(8)

        def between(self, x: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=self.rng) * float(self.numpy.normal())
            return x + noise if self.training else x

    return {"model": Noise()}


@case
def a_model_that_draws_from_NumPy() -> Case:
    class Drops(Layers):
        def between(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.3, self.training) * float(np.random.uniform(0.5, 1)) * random.uniform(0.5, 1)

    return {"model": Drops()}


@case
def spectral_norm_and_hooks() -> Case:
    model = Layers()
    model.lin1 = nn.utils.parametrizations.spectral_norm(model.lin1)
    calls = {"n": 0}

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls["n"] += 1
        return output / (1 + calls["n"] / 20)

    model.lin2.register_forward_hook(hook)
    return {"model": model}


GENERATOR = np.random.default_rng(9)
STEPS = {"n": 0}


def global_loss(preds: Tensor, targets: Tensor) -> Tensor:
    """A loss that counts and draws outside."""
    STEPS["n"] += 1
    return F.cross_entropy(preds, targets) * (1 + 0.1 * float(GENERATOR.normal())) / STEPS["n"] ** 0.1


@case
def a_loss_of_globals() -> Case:
    return {"loss_func": global_loss}


@case
def a_loss_with_buffers() -> Case:
    class Balanced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("counts", torch.ones(4))
            self.steps, self.rng = 0, random.Random(10)

        def forward(self, preds: Tensor, targets: Tensor) -> Tensor:
            self.counts += torch.bincount(targets, minlength=4)
            self.steps += 1
            weights = self.counts.sum() / self.counts * (1 + self.rng.random() / self.steps)
            return F.cross_entropy(preds, targets, weight=weights)

    return {"loss_func": Balanced()}


@case
def a_loss_that_is_a_partial() -> Case:
    def loss(preds: Tensor, targets: Tensor, centers: dict[str, Any]) -> Tensor:
        centers["mean"] = 0.9 * centers["mean"] + 0.1 * preds.detach().mean(0)
        return F.cross_entropy(preds - centers["mean"], targets)

    return {"loss_func": partial(loss, centers={"mean": torch.zeros(4)})}


# --- data sets, transforms, samplers ----------------------------------------------------------------------------------


def bunch(train: Any, valid: Any = None, **options: Any) -> Case:
    """A case of a DataLoader."""
    if not isinstance(train, DataLoader):
        options = {"shuffle": not isinstance(train, IterableDataset), **options}
        train = DataLoader(train, BATCH, **options)
    valid = valid or DataLoader(TensorDataset(X[:50], Y[:50]), BATCH)
    return {"data": DataBunch(train, valid, seed=1, device="cpu"), "metrics": accuracy}


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """The rows, each changed by `change`."""

    def __init__(self, change: Callable[[Tensor], Tensor] | None = None) -> None:
        self.change = change or (lambda x: x)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.change(X[i]), Y[i]


class Jitter:
    """A transform with a generator of its own."""

    def __init__(self, seed: int | None) -> None:
        self.rng, self.calls = np.random.default_rng(seed), 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + 0.3 * float(self.rng.normal()) / self.calls**0.1


class Compose:
    """Several transforms."""

    def __init__(self, *transforms: Any) -> None:
        self.transforms = transforms

    def __call__(self, x: Tensor) -> Tensor:
        for transform in self.transforms:
            x = transform(x)
        return x


@case
def a_transform_with_a_generator() -> Case:
    return bunch(Rows(Compose(Jitter(11), Jitter(12))))


@case
def a_generator_without_a_seed() -> Case:
    return bunch(Rows(Jitter(int.from_bytes(b"a seed", "big"))))


@case
def a_transform_in_workers() -> Case:
    return bunch(Rows(Jitter(13)), num_workers=2, persistent_workers=True)


@case
def augmentation_by_the_global_generators() -> Case:
    return bunch(Rows(lambda x: x + 0.1 * torch.randn(20) * float(np.random.normal()) * random.random()))


@case
def a_data_set_that_counts() -> Case:
    class Counts(Rows):
        epochs = 0
        seen = 0

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            self.seen += 1
            return X[i] / (1 + self.seen / 100), Y[i]

    return bunch(Counts())


@case
def a_data_set_with_a_cache() -> Case:
    class Caches(Rows):
        def __init__(self) -> None:
            super().__init__()
            self.cache: dict[int, Tensor] = {}
            self.rng = torch.Generator().manual_seed(14)

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            if i not in self.cache:
                self.cache[i] = X[i] + torch.randn(20, generator=self.rng)
            return self.cache[i], Y[i]

    return bunch(Caches())


class Shuffles(Sampler[int]):
    """A sampler with a generator, an epoch and a position."""

    def __init__(self) -> None:
        self.rng, self.epoch, self.yielded = random.Random(15), 0, 0

    def __iter__(self) -> Iterator[int]:
        order = list(range(ROWS))
        self.rng.shuffle(order)
        for i in order[self.epoch :] + order[: self.epoch]:
            self.yielded += 1
            yield i

    def __len__(self) -> int:
        return ROWS

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "yielded": self.yielded, "rng": self.rng.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.yielded = state["epoch"], state["yielded"]
        self.rng.setstate(state["rng"])


@case
def a_sampler_with_a_generator() -> Case:
    return bunch(DataLoader(Rows(), BATCH, sampler=Shuffles()))


@case
def a_sampler_whose_epoch_is_set() -> Case:
    sampler = Shuffles()

    class Sets(Callback):
        def on_epoch_begin(self, fit: Any) -> None:
            sampler.set_epoch(3 * fit.epoch + 1)

    return bunch(DataLoader(Rows(), BATCH, sampler=sampler)) | {"callbacks": [Sets()]}


@case
def a_batch_sampler_with_a_generator() -> Case:
    order = RandomSampler(Rows(), generator=torch.Generator().manual_seed(16))
    return bunch(DataLoader(Rows(), batch_sampler=BatchSampler(order, BATCH, False)))


@case
def a_loader_with_a_generator() -> Case:
    return bunch(DataLoader(Rows(), BATCH, shuffle=True, generator=torch.Generator().manual_seed(17)))


@case
def collate_with_a_generator() -> Case:
    rng = np.random.default_rng(18)

    def collate(rows: list[Any]) -> tuple[Tensor, Tensor]:
        x, y = torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows])
        share = float(rng.beta(0.4, 0.4))
        return share * x + (1 - share) * x.flip(0), y

    return bunch(Rows(), collate_fn=collate)


@case
def one_generator_for_data_and_model() -> Case:
    rng = np.random.default_rng(19)

    class Noise(Layers):
        def between(self, x: Tensor) -> Tensor:
            return x + 0.1 * float(rng.normal())

    return bunch(Rows(lambda x: x + 0.1 * float(rng.normal()))) | {"model": Noise()}


@case
def weights_of_rows_by_their_losses() -> Case:
    weights = torch.ones(ROWS, dtype=torch.float64)
    sampler = torch.utils.data.WeightedRandomSampler(weights, ROWS)  # pyright: ignore[reportArgumentType] -- it takes tensors

    class Weighs(Callback):
        def on_epoch_end(self, fit: Any) -> None:
            sampler.weights[fit.epoch * 50 : fit.epoch * 50 + 50] *= 4 + fit.record.losses[-1]

    return bunch(DataLoader(Rows(), BATCH, sampler=sampler)) | {"callbacks": [Weighs()]}


@case
def an_iterable_data_set_that_goes_on() -> Case:
    class Goes(IterableDataset[tuple[Tensor, Tensor]]):
        def __init__(self) -> None:
            self.start, self.rng = 0, random.Random(20)

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for _ in range(ROWS):
                self.start = (self.start + self.rng.randrange(7)) % ROWS
                yield X[self.start], Y[self.start]

        def __len__(self) -> int:
            return ROWS

    return bunch(Goes())


@case
def an_iterable_data_set_over_an_iterator() -> Case:
    class Over(IterableDataset[tuple[Tensor, Tensor]]):
        def __init__(self) -> None:
            self.rows = itertools.cycle(range(ROWS - 7))

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return ((X[i], Y[i]) for i in itertools.islice(self.rows, ROWS))

        def __len__(self) -> int:
            return ROWS

    return bunch(Over())


@case
def validation_rows_that_draw() -> Case:
    rows = Rows(Jitter(21))
    return bunch(rows, DataLoader(rows, 50))


@case
def a_metric_that_counts() -> Case:
    class Metric:
        __name__, calls = "counted", 0

        def __call__(self, preds: Tensor, targets: Tensor) -> float:
            self.calls += 1
            return float(self.calls)

    return {"metrics": [Metric()]}
