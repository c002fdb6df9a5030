"""What a resumed fit has in common with the one that it continues: anything that differs is refused by name."""

import random
import re
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, WeightedRandomSampler

from conftest import seeded, toy_arrays
from onecycle import (
    EMA,
    Callback,
    CSVLog,
    DataBunch,
    EarlyStopping,
    GradientAccumulation,
    GradientClip,
    Learner,
    SaveBest,
    accuracy,
    error_rate,
    rmse,
    top_k_accuracy,
)
from onecycle.errors import SettingError

SCALE = 1.0  # a global that a loss reads
SETTINGS = {"gamma": 2.0, "folder": "here"}


class Stop(Callback):
    """Ends a fit of two epochs as Ctrl-C does; class attributes of callbacks are not compared."""

    at = -1

    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration == self.at:
            fit.stop("interrupted")


class MixUp(Callback):
    def __init__(self, alpha: float) -> None:
        self.strength = alpha
        self.calls = 0

    def on_batch_begin(self, fit: Any) -> None:
        self.calls += 1
        fit.xb = fit.xb * (1 - 0.1 * self.strength)


class Net(nn.Module):
    slope = 0.1

    def __init__(self, p: float = 0.5, factor: float = 1.0, mask: float = 1.0) -> None:
        super().__init__()
        self.lin1, self.drop, self.lin2 = nn.Linear(20, 8), nn.Dropout(p), nn.Linear(8, 4)
        self.factor, self.mask = factor, torch.full((8,), mask)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.drop(F.leaky_relu(self.lin1(x), self.slope)) * self.mask) * self.factor


class Net2(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


Net2.__qualname__ = Net2.__name__ = "Net"


class Rows(Dataset[Any]):
    """Rows that a user's data set holds as tensors, arrays, a list or not at all."""

    def __init__(self, kind: str, edit: float = 0.0, factor: float = 1.0) -> None:
        x, y = toy_arrays()
        x[3, 2] += edit
        self.kind, self.factor, self.y = kind, factor, y
        self.x: Any = x
        if kind == "arrays":
            self.x = x.numpy()
        if kind == "list":
            self.x = [*x]
        if kind == "frame":
            self.x = pd.DataFrame(x.numpy()).assign(name="text")
        if kind == "made":
            self.x, self.edit = None, edit

    def __len__(self) -> int:
        return 200

    def __getitem__(self, i: int) -> Any:
        if self.kind == "made":
            row = torch.full((20,), i / 100 + self.edit * (i == 199))
        elif self.kind == "frame":
            row = torch.tensor(self.x.iloc[i, :20].to_numpy(dtype="float32"))
        else:
            row = torch.as_tensor(self.x[i])
        return row * self.factor, self.y[i]


def tensors(edit: float = 0.0) -> TensorDataset:
    x, y = toy_arrays()
    x[3, 2] += edit
    return TensorDataset(x, y)


def loader(dataset: Any = None, **options: Any) -> DataBunch:
    options = {"batch_size": 16, "shuffle": True} | options
    train = DataLoader(tensors() if dataset is None else dataset, **options)
    return DataBunch(train, DataLoader(tensors(), 16), seed=1)


def memory(edit: float = 0.0, **options: Any) -> DataBunch:
    x, y = tensors(edit).tensors
    return DataBunch.create((x, y), toy_arrays(50, seed=1), **({"bs": 16, "seed": 1} | options))


def table(factor: float) -> DataBunch:
    x, _ = toy_arrays()
    return DataBunch.from_table({"a": x[:, 0].numpy(), "y": x[:, 1].numpy() * factor}, "y", seed=1, bs=16)


def pixels(scale: float) -> DataBunch:
    x, y = (torch.rand(200, 20) * 0 + torch.arange(20)).to(torch.uint8), torch.arange(200) % 4
    return DataBunch.create((x, y), (x, y), bs=16, seed=1, pixel_scale=scale)


def weighted(last: float) -> DataBunch:
    return loader(shuffle=False, sampler=WeightedRandomSampler([1.0] * 199 + [last], 200))


def collate(rows: list[Any], scale: float) -> Any:
    x, y = zip(*rows, strict=True)
    return torch.stack(x) * scale, torch.stack(y)


def focal(preds: Tensor, targets: Tensor, beta: float = 1.0) -> Tensor:
    return F.cross_entropy(preds, targets) ** beta * SCALE * SETTINGS["gamma"]


def closure(gamma: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(preds: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(preds, targets) * gamma

    return loss


class Weighted(nn.Module):
    def __init__(self, by: float, teacher: float = 0.0) -> None:
        super().__init__()
        self.by, self.inner = by, nn.CrossEntropyLoss(label_smoothing=teacher)

    def forward(self, preds: Tensor, targets: Tensor) -> Tensor:
        return self.inner(preds, targets) * self.by


def one_metric(preds: Tensor, targets: Tensor) -> Tensor:
    return preds.mean()


def other_metric(preds: Tensor, targets: Tensor) -> Tensor:
    return preds.mean() + 1


other_metric.__name__ = other_metric.__qualname__ = "one_metric"


class Scaled(SGD):
    def __init__(self, params: Any, lr: float = 1e-2, by: float = 1.0) -> None:
        super().__init__(params, lr)
        self.by = by


def learner(
    data: Callable[[], DataBunch] = memory,
    model: Callable[[], nn.Module] = Net,
    callbacks: Callable[[], list[Callback]] = list,
    **options: Any,
) -> Learner:
    options = {"metrics": [accuracy]} | options
    return Learner(data(), seeded(model()), callbacks=[*callbacks(), Stop()], silent=True, engine="eager", **options)


CE = nn.CrossEntropyLoss
Setup = dict[str, Any]


def cb(*make: Callable[[], Callback]) -> Setup:
    return {"callbacks": lambda: [each() for each in make]}


def ds(make: Callable[[], Any]) -> Setup:
    return {"data": lambda: loader(make())}


CASES: dict[str, tuple[Setup, Setup, str]] = {
    # data
    "a row in memory": ({}, {"data": partial(memory, edit=1)}, "training data: sha256 "),
    "the batch size": ({}, {"data": partial(memory, bs=8)}, "training data: bs 16, here 8"),
    "validation's batch size": ({}, {"data": partial(memory, val_bs=8)}, "validation data: bs 16, here 8"),
    "the seed": ({}, {"data": partial(memory, seed=2)}, "settings: seed 1, here 2"),
    "pixel scale": (
        {"data": partial(pixels, 255.0)},
        {"data": partial(pixels, 10.0)},
        "training data: pixel_scale 255.0, here 10.0",
    ),
    "a target's scale": (
        {"data": partial(table, 1), "model": partial(nn.Linear, 1, 1), "metrics": [rmse]},
        {"data": partial(table, 2), "model": partial(nn.Linear, 1, 1), "metrics": [rmse]},
        "settings: target.",
    ),
    "a row of a DataLoader": (ds(tensors), ds(partial(tensors, 1)), r"training data: data set.tensors\[0\] float32"),
    "a row of a Subset": (
        ds(lambda: Subset(tensors(), range(200))),
        ds(lambda: Subset(tensors(1), range(200))),
        r"training data: data set 2.tensors\[0\] float32",
    ),
    "the rows of a Subset": (
        ds(lambda: Subset(tensors(), [*range(100)] * 2)),
        ds(lambda: Subset(tensors(), [*range(200)])),
        "training data: data set.indices 200 items",
    ),
    "a row of a ConcatDataset": (
        ds(lambda: ConcatDataset([tensors(), tensors()])),
        ds(lambda: ConcatDataset([tensors(), tensors(1)])),
        r"training data: data set 3.tensors\[0\] float32",
    ),
    **{
        f"a row of a user's data set: {kind}": (
            ds(partial(Rows, kind)),
            ds(partial(Rows, kind, 1)),
            f"training data: (data set.{'edit' if kind == 'made' else 'x'}|rows in a sample) ",
        )
        for kind in ("tensors", "arrays", "list", "frame", "made")
    },
    "a setting of a data set": (
        ds(partial(Rows, "tensors")),
        ds(partial(Rows, "tensors", factor=2.0)),
        "training data: data set.factor 1.0, here 2.0",
    ),
    "a DataLoader's shuffle": (
        {"data": loader},
        {"data": partial(loader, shuffle=False)},
        "training data: sampler RandomSampler, here SequentialSampler",
    ),
    "a DataLoader's drop_last": (
        {"data": loader},
        {"data": partial(loader, drop_last=True)},
        "training data: batches 13, here 12; training data: .*drop_last",
    ),
    "a sampler's weights": (
        {"data": partial(weighted, 1)},
        {"data": partial(weighted, 9)},
        "training data: sampler.weights float64",
    ),
    "collate_fn": (
        {"data": partial(loader, collate_fn=partial(collate, scale=1.0))},
        {"data": partial(loader, collate_fn=partial(collate, scale=2.0))},
        r"training data: collate_fn\(scale\) 1.0, here 2.0",
    ),
    # model
    "dropout": ({}, {"model": partial(Net, 0.1)}, "model: model.drop.p 0.5, here 0.1"),
    "a number of the model": ({}, {"model": partial(Net, factor=2.0)}, "model: model.factor 1.0, here 2.0"),
    "a tensor that is no buffer": ({}, {"model": partial(Net, mask=2.0)}, r"model: model.mask float32 \[8\]"),
    "forward": ({}, {"model": Net2}, "model: code of Net "),
    "another activation": (
        {"model": lambda: nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 4))},
        {"model": lambda: nn.Sequential(nn.Linear(20, 8), nn.Tanh(), nn.Linear(8, 4))},
        "model: class of model.1 ReLU, here Tanh",
    ),
    # loss
    "loss weights": (
        {"loss_func": CE(weight=torch.tensor([1.0, 2, 3, 4]))},
        {"loss_func": CE(weight=torch.tensor([1.0, 2, 3, 5]))},
        r"loss: CrossEntropyLoss.weight float32 \[4\]",
    ),
    "no loss weights": ({"loss_func": CE(weight=torch.ones(4))}, {"loss_func": CE()}, "loss: CrossEntropyLoss.weight "),
    "label smoothing": (
        {"loss_func": CE(label_smoothing=0.3)},
        {},
        "loss: CrossEntropyLoss.label_smoothing 0.3, here 0.0",
    ),
    "a partial loss": (
        {"loss_func": partial(focal, beta=1.0)},
        {"loss_func": partial(focal, beta=2.0)},
        r"loss: focal\(beta\) 1.0, here 2.0",
    ),
    "a closure": ({"loss_func": closure(1.0)}, {"loss_func": closure(2.0)}, "loss: loss.gamma 1.0, here 2.0"),
    "the code of a loss": (
        {"loss_func": lambda preds, targets: F.cross_entropy(preds, targets)},
        {"loss_func": lambda preds, targets: F.cross_entropy(preds, targets) * 2},
        "loss: code of <lambda> ",
    ),
    "an attribute of a loss": (
        {"loss_func": Weighted(1.0)},
        {"loss_func": Weighted(2.0)},
        "loss: Weighted.by 1.0, here 2.0",
    ),
    "a loss in a loss": (
        {"loss_func": Weighted(1.0)},
        {"loss_func": Weighted(1.0, 0.1)},
        "loss: Weighted.inner.label_smoothing 0.0, here 0.1",
    ),
    # metrics
    "another metric": ({}, {"metrics": [error_rate]}, "settings: metrics .*accuracy.*, here .*error_rate"),
    "one more metric": ({}, {"metrics": [accuracy, error_rate]}, "settings: metrics "),
    "a metric's setting": (
        {"metrics": [partial(top_k_accuracy, k=2)]},
        {"metrics": [partial(top_k_accuracy, k=3)]},
        r"metrics: top_k_accuracy\(k\) 2, here 3",
    ),
    "a metric's code": ({"metrics": [one_metric]}, {"metrics": [other_metric]}, "metrics: code of one_metric "),
    # optimizer
    "the optimizer": ({}, {"opt_func": SGD}, "optimizer: class Adam, here SGD"),
    **{
        f"SGD's {name}": (
            {"opt_func": partial(SGD, momentum=0.9)},
            {"opt_func": partial(SGD, **({"momentum": 0.9} | {name: value}))},
            f"optimizer: {name} ",
        )
        for name, value in {"momentum": 0.8, "nesterov": True, "dampening": 0.1, "weight_decay": 0.1}.items()
        if name != "dampening" or value
    },
    "betas": ({}, {"opt_func": partial(Adam, betas=(0.8, 0.99))}, r"optimizer: betas \[0.9, 0.99"),
    "eps": ({"opt_func": Adam}, {"opt_func": partial(Adam, eps=1e-6)}, "optimizer: eps 1e-08, here 1e-06"),
    "a user's optimizer": ({"opt_func": Scaled}, {"opt_func": partial(Scaled, by=2.0)}, "optimizer: by 1.0, here 2.0"),
    "true_wd": ({}, {"true_wd": False}, "settings: true_wd true, here false"),
    "bn_wd": ({}, {"bn_wd": False}, "settings: bn_wd true, here false"),
    "precision": ({}, {"precision": "bf16"}, "settings: precision fp32, here bf16"),
    # callbacks
    "one more callback": ({}, cb(partial(GradientClip, 0.1)), "callbacks: GradientClip, which the run does not have"),
    "one callback less": (cb(partial(EMA, 0.9)), {}, "callbacks: EMA, which is not here"),
    "two of a kind": (
        cb(partial(MixUp, 0.1), partial(MixUp, 0.2)),
        cb(partial(MixUp, 0.1), partial(MixUp, 0.3)),
        "callbacks: MixUp 2.strength 0.2, here 0.3",
    ),
    "the order": (
        cb(partial(MixUp, 0.1), partial(GradientClip, 0.1)),
        cb(partial(GradientClip, 0.1), partial(MixUp, 0.1)),
        r"callbacks: order \[\"MixUp\", \"GradientClip\", \"Stop\"\], here",
    ),
    "EMA": (cb(partial(EMA, 0.9)), cb(partial(EMA, 0.99)), "callbacks: EMA.decay 0.9, here 0.99"),
    "clipping": (
        cb(partial(GradientClip, 0.1)),
        cb(partial(GradientClip, 0.2)),
        "callbacks: GradientClip.max_norm 0.1, here 0.2",
    ),
    "accumulation": (
        cb(partial(GradientAccumulation, 2)),
        cb(partial(GradientAccumulation, 3)),
        "callbacks: GradientAccumulation.n 2, here 3",
    ),
    "patience": (
        cb(partial(EarlyStopping, patience=5)),
        cb(partial(EarlyStopping, patience=6)),
        "callbacks: EarlyStopping.patience 5, here 6",
    ),
    "min_delta": (
        cb(EarlyStopping),
        cb(partial(EarlyStopping, min_delta=0.1)),
        "callbacks: EarlyStopping.min_delta 0.0, here 0.1",
    ),
    "monitor": (
        cb(EarlyStopping),
        cb(partial(EarlyStopping, "train_loss")),
        "callbacks: EarlyStopping.monitor valid_loss, here train_loss",
    ),
    "mode": (
        cb(partial(SaveBest, "best", mode="min")),
        cb(partial(SaveBest, "best", mode="max")),
        "callbacks: SaveBest.mode min, here max",
    ),
    "a user's callback": (cb(partial(MixUp, 0.1)), cb(partial(MixUp, 0.2)), "callbacks: MixUp.strength 0.1, here 0.2"),
}


def interrupted(setup: Setup, monkeypatch: pytest.MonkeyPatch, at: int = 5) -> None:
    monkeypatch.setattr(Stop, "at", at)
    learner(**setup).fit(2, 1e-2, checkpoint="run")
    monkeypatch.setattr(Stop, "at", -1)


@pytest.mark.parametrize("case", CASES)
def test_what_differs_is_refused_by_name_and_the_same_resumes_bit_for_bit(
    here: Path, case: str, monkeypatch: pytest.MonkeyPatch
):
    first, second, message = CASES[case]
    interrupted(first, monkeypatch)
    with pytest.raises(SettingError, match=f"run belongs to a different fit: .*{message}"):
        learner(**second).resume("run")
    resumed = learner(**first)
    resumed.resume("run")
    plain = learner(**first)
    plain.fit(2, 1e-2)
    assert resumed.recorder.record.batch_losses == plain.recorder.record.batch_losses
    for name, value in plain.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)


def test_globals_that_a_loss_reads(here: Path, monkeypatch: pytest.MonkeyPatch):
    setup = {"loss_func": focal}
    interrupted(setup, monkeypatch)
    monkeypatch.setitem(SETTINGS, "folder", "there")  # which it does not read
    learner(**setup).resume("run")
    monkeypatch.setitem(SETTINGS, "gamma", 3.0)
    with pytest.raises(SettingError, match="loss: focal.SETTINGS.gamma 2.0, here 3.0; expected"):
        learner(**setup).resume("run")
    monkeypatch.setitem(SETTINGS, "gamma", 2.0)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(SettingError, match="loss: focal.SCALE 1.0, here 2.0; expected"):
        learner(**setup).resume("run")


def test_without_strict_a_difference_is_a_warning(here: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted({}, monkeypatch)
    with pytest.warns(UserWarning, match="model.drop.p 0.5, here 0.1; it is resumed all the same, since strict=False"):
        learner(model=partial(Net, 0.1)).resume("run", strict=False)


class Counts(nn.Module):
    """A model whose attributes change as it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.calls, self.seen = nn.Linear(20, 4), 0, list[float]()
        self.center = torch.zeros(20)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(0.0)
        self.center.add_(0.1)
        return self.lin(x)


def test_what_steps_change_is_not_compared(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Stop, "at", 20)
    learn = learner(model=Counts, callbacks=lambda: [MixUp(0.1)])
    learn.fit(2, 1e-2, checkpoint="run", every=4)
    monkeypatch.setattr(Stop, "at", -1)
    learn.resume("run")  # the same objects, which the fit left changed
    assert len(learn.recorder.losses) == 24


class Random(Rows):
    def __getitem__(self, i: int) -> Any:
        x, y = super().__getitem__(i)
        return x + random.random() + float(np.random.rand()) + torch.rand(()), y


class Files(Rows):
    """Rows that are read when they are needed."""

    def __init__(self) -> None:
        super().__init__("tensors")
        self.x, self.y, self.reads = None, [f"file {i}" for i in range(200)], 0
        self.generator = torch.Generator()

    def __getitem__(self, i: int) -> Any:
        self.reads += 1
        return torch.full((20,), float(i)), torch.tensor(i % 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Rows, "tensors"), None),
        (partial(Rows, "list"), None),
        (partial(Random, "arrays"), None),
        (partial(Subset, Rows("tensors"), range(200)), None),
        (Files, "training data: rows of Files, other than 8 of them\n"),
        (lambda: Opaque(), r"training data: data set.handle \(Handle\)"),
    ],
)
def test_what_is_not_compared_is_said_at_the_start(
    here: Path, make: Callable[[], Any], message: str | None, capsys: pytest.CaptureFixture[str]
):
    dataset = make()
    learn = learner(**ds(lambda: dataset))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    learn.silent, reads = False, getattr(dataset, "reads", 0)
    learn.fit(0, 1e-2, checkpoint="run")
    out = capsys.readouterr().out
    words = "checkpoint: a change of what follows would not be noticed when the fit is resumed: "
    assert out.count(words) == (message is not None)
    if message is not None:
        assert re.search(words + message, out)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert after[:2] == before[:2]
    assert torch.equal(after[2], before[2])
    assert getattr(dataset, "reads", 0) == reads
    learn.fit(0, 1e-2)  # without checkpoints nothing is described
    assert words not in capsys.readouterr().out


class Opaque(Rows):
    def __init__(self) -> None:
        super().__init__("tensors")
        self.handle = Handle()


class Handle:
    """As an object of an extension: there is nothing to look into."""

    __slots__ = ()


Handle.__module__ = "numpy"


def test_a_data_set_is_sampled_and_left_as_it_was(here: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(ds(Files), monkeypatch)
    monkeypatch.setattr(Files, "__getitem__", lambda self, i: (torch.full((20,), i + 1.0), torch.tensor(i % 4)))
    with pytest.raises(SettingError, match="training data: (code of Files|rows in a sample) "):
        learner(**ds(Files)).resume("run")


@pytest.mark.slow  # it starts a process
def test_the_number_of_workers_is_only_warned_about(here: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted({"data": loader}, monkeypatch)
    with pytest.warns(UserWarning, match="machine: workers of training data 0, here 1; the fit resumes"):
        learner(data=partial(loader, num_workers=1)).resume("run")


def test_a_learner_that_is_as_it_was_is_not_warned_about(here: Path, monkeypatch: pytest.MonkeyPatch):
    callbacks = cb(
        partial(EMA, 0.9), partial(CSVLog, "log.csv", overwrite=True), partial(SaveBest, "best"), EarlyStopping
    )
    interrupted(callbacks | {"data": loader}, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(**callbacks, data=loader).resume("run")


class Lazy(nn.Module):
    """Makes a table with its first batch, and looks at activations."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.lin, self.table, self.seen = nn.Linear(20, 4), None, dict[str, Any]()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.cos(torch.arange(20.0))
        self.seen["shape"] = x.shape
        return self.lin(x * self.table)


class Cached(Rows):
    """Keeps rows once they are read."""

    def __init__(self) -> None:
        super().__init__("tensors")
        self.cache = dict[int, Any]()

    def __getitem__(self, i: int) -> Any:
        if i not in self.cache:
            self.cache[i] = super().__getitem__(i)
        return self.cache[i]


class Remembers(Callback):
    def __init__(self) -> None:
        self.epochs = list[int]()

    def on_epoch_end(self, fit: Any) -> None:
        self.epochs.append(fit.epoch)


@pytest.mark.parametrize("use", ["fit", "validate", "get_preds", "lr_find"])
def test_what_was_used_before_the_fit_is_as_new_to_a_learner_that_resumes(
    here: Path, use: str, monkeypatch: pytest.MonkeyPatch
):
    def make() -> Learner:
        return learner(model=Lazy, data=lambda: loader(Cached()), callbacks=lambda: [Remembers()])

    learn = make()
    learn.fit(1, 1e-2) if use == "fit" else getattr(learn, use)()
    monkeypatch.setattr(Stop, "at", 20)
    learn.fit(2, 1e-2, checkpoint="run", every=4)
    monkeypatch.setattr(Stop, "at", -1)
    shutil.copytree("run", "copy")
    make().resume("run")
    learn.resume("copy")  # as in a notebook: the fit left the same objects changed


def test_a_setting_that_is_changed_between_two_fits_is_compared(here: Path, monkeypatch: pytest.MonkeyPatch):
    learn = learner(model=Lazy)
    learn.fit(1, 1e-2)
    learn.model.p = 0.5
    monkeypatch.setattr(Stop, "at", 20)
    learn.fit(2, 1e-2, checkpoint="run")
    monkeypatch.setattr(Stop, "at", -1)
    with pytest.raises(SettingError, match=r"model: model.p 0.5, here 0.0; expected"):
        learner(model=Lazy).resume("run")


def test_what_a_callback_can_leave_out_is_said(here: Path, monkeypatch: pytest.MonkeyPatch):
    interrupted(cb(partial(MixUp, 0.1)), monkeypatch)
    with pytest.raises(SettingError, match=r"left out by the callback's resume_settings\(\)"):
        learner(**cb(partial(MixUp, 0.2))).resume("run")


def test_the_seed_of_data_without_one_is_said(here: Path, monkeypatch: pytest.MonkeyPatch):
    def make(generator: int, seed: int | None = None) -> Learner:
        torch.manual_seed(generator)  # that of a new process is another
        return learner(data=lambda: DataBunch.create(toy_arrays(), bs=16, seed=seed))

    learn = make(1)
    monkeypatch.setattr(Stop, "at", 5)
    learn.fit(2, 1e-2, checkpoint="run")
    monkeypatch.setattr(Stop, "at", -1)
    seed = learn.data.seed
    with pytest.raises(SettingError, match=f"settings: seed {seed}, here .*; make the data with seed={seed}"):
        make(2).resume("run")
    make(2, seed).resume("run")
