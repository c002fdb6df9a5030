"""A fit that is resumed from any of its checkpoints ends as one that was never stopped, bit for bit."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from conftest import Net, seeded, toy_arrays
from onecycle import (
    EMA,
    Callback,
    CheckpointConfig,
    DataBunch,
    EarlyStopping,
    GradientAccumulation,
    GradientClip,
    Learner,
    SaveBest,
    accuracy,
    error_rate,
)
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.errors import FileError, NonFiniteLossError, SettingError
from onecycle.optim.schedules import Constant

Make = Callable[[], Learner]


class Noisy(nn.Module):
    """Dropout, BatchNorm, and a buffer that no state dict has."""

    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.bn, self.lin2 = nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
        return (
            self.lin2(nn.functional.dropout(torch.relu(self.bn(self.lin1(x))), 0.3, self.training)) + self.steps / 100
        )


def learner(engine: str, model: Callable[[], nn.Module] = Net, data: str = "memory", **options: Any) -> Learner:
    if data == "memory":
        bunch = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    else:  # a short last batch, from torch's loader
        sets = [TensorDataset(*toy_arrays()), TensorDataset(*toy_arrays(50, seed=1))]
        bunch = DataBunch(DataLoader(sets[0], 48, shuffle=True), DataLoader(sets[1], 48), seed=3)
    callbacks = [make() for make in options.pop("callbacks", ())]
    return Learner(bunch, seeded(model()), metrics=accuracy, silent=True, engine=engine, callbacks=callbacks, **options)


CASES: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "SGD": {"opt_func": SGD},
    "momentum": {"opt_func": partial(SGD, momentum=0.9), "true_wd": False},
    "noise": {"model": Noisy},
    "clipping": {"callbacks": [lambda: GradientClip(0.05)]},
    "accumulation": {"callbacks": [lambda: GradientAccumulation(3)]},
    "EMA": {"callbacks": [lambda: EMA(0.9)], "model": Noisy},
    "a short last batch": {"data": "loader", "model": Noisy},
}


def everything(learn: Learner) -> dict[str, Any]:
    """All that must be equal at the end."""
    assert learn.opt is not None
    record = json.loads(learn.recorder.record.to_json())
    del record["seconds"]
    entries = learn.opt.state_dict()["state"]
    moments = {f"{i}.{key}": value for i, entry in entries.items() for key, value in entry.items()}
    return {
        "weights": {name: value.clone() for name, value in learn.model.state_dict().items()},
        "buffers": [buffer.clone() for buffer in learn.model.buffers()],
        "moments": {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in moments.items()},
        "record": record,
        "groups": [{k: v for k, v in group.items() if k != "params"} for group in learn.opt.groups],
        "epochs": learn.epochs_trained,
    }


def assert_equal(found: Any, expected: Any, place: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key, value in expected.items():
            assert_equal(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for i, value in enumerate(expected):
            assert_equal(found[i], value, f"{place}[{i}]")
    else:
        assert found == expected, place


@pytest.mark.slow
@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("engine", ["eager", "fast"])
@pytest.mark.parametrize("case", CASES)
def test_resuming_at_every_batch_is_invisible(case: str, engine: str, tmp_path: Path):
    make = partial(learner, engine, **CASES[case])
    plain = make()
    plain.fit_one_cycle(2, 1e-2)
    batches = len(plain.data.train_dl)
    for every, count in ((1, 2 * batches + 1), ("1 epoch", 2)):
        kept, run = make(), tmp_path / f"{count}"
        kept.fit_one_cycle(2, 1e-2, checkpoint=CheckpointConfig(run, every, keep=10**6))
        assert_equal(everything(kept), everything(plain))
        names = RunFolder(run).names()
        assert len(names) == count
        for name in names[1:]:
            copy = tmp_path / name
            shutil.copytree(run, copy)
            RunFolder(copy).prune({name})
            resumed = make()
            resumed.resume(copy)
            assert_equal(everything(resumed), everything(plain), name)
            shutil.rmtree(copy)


@pytest.mark.usefixtures("at_once")
def test_a_second_fit_is_resumed_with_its_orders(tmp_path: Path):
    def trained() -> Learner:
        learn = learner("fast")
        learn.fit(1, 1e-3)
        return learn

    plain = trained()
    plain.fit(2, 1e-3)
    kept = trained()
    kept.fit(2, 1e-3, checkpoint=CheckpointConfig(tmp_path, every=5, keep=100))
    RunFolder(tmp_path).prune({RunFolder(tmp_path).names()[-1]})
    resumed = learner("fast")
    resumed.resume(tmp_path)
    assert_equal(everything(resumed), everything(plain))


def test_a_finished_fit_is_only_loaded(tmp_path: Path):
    learn = learner("eager")
    learn.fit_one_cycle(1, 1e-2, checkpoint=tmp_path / "a")
    other = learner("eager")
    other.resume(tmp_path / "a")
    assert_equal(everything(other), everything(learn))
    assert not (tmp_path / "a/.lock").exists()


class StopsAfter(Callback):
    """Ends the fit after so many batches, as Ctrl-C does."""

    def __init__(self, batches: int, reason: str = "interrupted") -> None:
        self.batches, self.reason = batches, reason

    def resume_settings(self) -> dict[str, Any]:
        return {}  # the resumed fit goes on to its end

    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration + 1 == self.batches:
            fit.stop(self.reason)


@pytest.mark.parametrize("batches", [1, 7, 12, 13])
def test_what_is_stopped_is_kept(tmp_path: Path, batches: int):
    plain = learner("eager")
    plain.fit_one_cycle(2, 1e-2)
    learn = learner("eager")
    learn.fit_one_cycle(2, 1e-2, callbacks=[StopsAfter(batches)], checkpoint=tmp_path / "a", every="1 h")
    assert learn.recorder.stopped == "interrupted"
    other = learner("eager")
    other.resume(tmp_path / "a", callbacks=[StopsAfter(100)])
    assert_equal(everything(other), everything(plain))


def test_a_fit_that_a_callback_ended_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    learn = learner("eager")
    learn.fit_one_cycle(2, 1e-2, callbacks=[StopsAfter(12, "good enough")], checkpoint=tmp_path / "a")
    other = learner("eager")
    other.silent = False
    other.resume(tmp_path / "a", callbacks=[StopsAfter(0)])
    assert other.recorder.stopped == "good enough"
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'a'}: good enough after 12 batches; it is loaded\n")
    assert len(other.recorder.losses) == 12


# --- what callbacks change ------------------------------------------------------------------------------------------


class Interrupts(Callback):
    """Ends the fit as Ctrl-C does."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at

    def resume_settings(self) -> dict[str, Any]:
        return {}  # the resumed fit goes on to its end

    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration == self.at:
            signal.raise_signal(signal.SIGINT)


class ReplacesAtBegin(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        if fit.epoch == 1:
            fit.model[0] = seeded(nn.Linear(20, 30))


class ReplacesAtEnd(Callback):
    def on_epoch_end(self, fit: Any) -> None:
        if fit.epoch == 0:
            fit.model[0] = seeded(nn.Linear(20, 30))


class Unfreezes(Callback):
    def on_epoch_begin(self, fit: Any) -> None:
        if fit.epoch == 1:
            fit.model[0].requires_grad_(True)


def three_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4))


def first_frozen() -> nn.Sequential:
    model = three_layers()
    model[0].requires_grad_(False)
    return model


def weights_and_moments(learn: Learner) -> dict[str, Any]:
    assert learn.opt is not None
    state = learn.opt.torch_opt.state
    return {name: {"p": p.detach(), **state[p]} for name, p in learn.model.named_parameters() if p in state}


@pytest.mark.parametrize("change", [ReplacesAtBegin, ReplacesAtEnd])
@pytest.mark.parametrize("at", [11, 17])  # the last batch of the first epoch; one of the second
def test_moments_land_on_their_parameters_when_a_callback_replaced_a_layer(
    tmp_path: Path, change: Callable[[], Callback], at: int
):
    plain, stopped, resumed = (learner("eager", three_layers) for _ in range(3))
    plain.fit_one_cycle(3, 1e-2, callbacks=[change(), Interrupts()])
    stopped.fit_one_cycle(3, 1e-2, checkpoint=tmp_path / "run", callbacks=[change(), Interrupts(at)])
    assert stopped.recorder.stopped
    resumed.resume(tmp_path / "run", callbacks=[change(), Interrupts()])
    assert_equal(weights_and_moments(resumed), weights_and_moments(plain))


@pytest.mark.parametrize("is_new", [False, True])
def test_resuming_after_a_callback_unfroze(tmp_path: Path, is_new: bool):
    plain, stopped = (learner("eager", first_frozen) for _ in range(2))
    plain.fit_one_cycle(3, 1e-2, callbacks=[Unfreezes(), Interrupts()])
    stopped.fit_one_cycle(3, 1e-2, checkpoint=tmp_path / "run", callbacks=[Unfreezes(), Interrupts(17)])
    resumed = learner("eager", first_frozen) if is_new else stopped  # in a notebook it is the same learner
    resumed.resume(tmp_path / "run", callbacks=[Unfreezes(), Interrupts()])
    assert_equal(weights_and_moments(resumed), weights_and_moments(plain))


def test_other_layer_groups_are_refused_and_nothing_is_changed(tmp_path: Path):
    first = learner("eager", first_frozen)
    first.split(first.model[2]).fit(1, 1e-2, checkpoint=tmp_path / "run")
    other = learner("eager", three_layers)
    other.split(other.model[4]).fit(1, 1e-2)
    before = everything(other)
    with pytest.raises(
        SettingError, match="run belongs to a different fit: the optimizer's state is of other layer gr"
    ):
        other.resume(tmp_path / "run")
    assert_equal(everything(other), before)
    assert all(parameter.requires_grad for parameter in other.model.parameters())


def test_moments_of_another_shape_are_refused_before_anything_is_changed(tmp_path: Path):
    class Shrinks(Callback):
        def on_epoch_end(self, fit: Any) -> None:
            fit.opt.torch_opt.state[fit.model[2].bias]["exp_avg"] = torch.zeros(1)

    learner("eager", three_layers).fit(1, 1e-2, checkpoint=tmp_path / "run", callbacks=[Shrinks()])
    other = learner("eager", three_layers)
    other.fit(1, 1e-3)
    before = everything(other)
    with pytest.raises(FileError, match=r"run: the optimizer's exp_avg of 2.bias has shape \(1,\); expected shape"):
        other.resume(tmp_path / "run", callbacks=[Shrinks()])
    assert_equal(everything(other), before)


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    learner("eager").fit_one_cycle(1, 1e-2, checkpoint=tmp_path / "run")
    return tmp_path / "run"


def with_other_data() -> Learner:
    learn = learner("eager")
    learn.data.train_dl.tensors[0][3, 3] += 1
    return learn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: learner("eager", model=partial(Net, hidden=9)),
            r"model: lin1.weight \[8, 20\] torch.float32, here \[9",
        ),
        (with_other_data, "training data: sha256 [0-9a-f]+…, here"),
        (lambda: learner("eager", opt_func=SGD), "optimizer: class Adam, here SGD"),
        (lambda: learner("eager", true_wd=False), "settings: true_wd true, here false"),
        (lambda: learner("eager", precision="bf16"), "settings: precision fp32, here bf16"),
        (lambda: learner("eager", loss_func=nn.MultiMarginLoss()), "loss: function CrossEntropyLoss, here"),
    ],
)
def test_another_fit_is_refused_by_name(run: Path, make: Make, message: str):
    learn = make()
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    with pytest.raises(SettingError, match=f"belongs to a different fit: .*{message}"):
        learn.resume(run)
    assert_equal(dict(learn.model.state_dict()), before)
    assert not (run / ".lock").exists()


def test_a_missing_callback_is_named(tmp_path: Path):
    learner("eager", callbacks=[lambda: EMA(0.9)]).fit_one_cycle(1, 1e-2, checkpoint=tmp_path / "a")
    with pytest.raises(SettingError, match="callbacks: EMA, which is not here"):
        learner("eager").resume(tmp_path / "a")


def test_nothing_to_resume(tmp_path: Path):
    with pytest.raises(FileError, match="nothing: holds no checkpoints; expected the folder that a fit had"):
        learner("eager").resume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("options", [{"best": "acuracy"}, {}])
def test_an_earlier_run_goes_only_when_the_new_one_is_there(run: Path, options: dict[str, Any]):
    learn, names = learner("eager", callbacks=[lambda: EarlyStopping("acuracy")]), RunFolder(run).names()
    with pytest.raises(SettingError, match='did you mean "accuracy"'):
        learn.fit(1, 1e-2, checkpoint=CheckpointConfig(run, overwrite=True, **options))
    assert RunFolder(run).names() == names


def test_another_fit_in_the_folder_is_not_extended(run: Path):
    learn = learner("eager")
    learn.fit_one_cycle(1, 1e-2, checkpoint=CheckpointConfig(run, overwrite=True))
    learner("eager").fit_one_cycle(3, 1e-2, checkpoint=CheckpointConfig(run, overwrite=True))
    with pytest.raises(SettingError, match="holds checkpoints of another fit than the one to continue"):
        learn.extend(1)


def test_an_earlier_run_is_not_replaced_unasked(run: Path):
    learn = learner("eager")
    with pytest.raises(SettingError, match=r"holds checkpoints of an earlier fit: resume it with learn.resume\("):
        learn.fit(1, 1e-2, checkpoint=run)
    names = RunFolder(run).names()
    learn.fit(1, 1e-2, checkpoint=CheckpointConfig(run, overwrite=True))
    assert RunFolder(run).names() == names


def test_a_run_in_use_is_refused(run: Path):
    lock = RunFolder(run).lock()
    with pytest.raises(SettingError, match=r"run: in use by process \d+; wait until it ends"):
        learner("eager").resume(run)
    lock.release(remove=True)
    learner("eager").resume(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 5}, "every=5 needs checkpoint=, the folder of the run that the fit is saved in"),
        (
            {"every": 5, "checkpoint": CheckpointConfig("a")},
            r"every must be passed inside CheckpointConfig: CheckpointConfig\(folder, every=5\)",
        ),
        ({"checkpoint": ""}, "checkpoint is ''; expected the folder of a run, or CheckpointConfig"),
        ({"checkpoint": True}, "checkpoint is True; expected the folder of a run, or CheckpointConfig"),
    ],
)
def test_where_and_how_often(options: dict[str, Any], message: str):
    with pytest.raises(SettingError, match=message):
        learner("eager").fit(1, 1e-2, **options)


def test_many_differences_are_counted(run: Path):
    learn = learner("eager", model=partial(Net, hidden=9), opt_func=SGD, precision="bf16", true_wd=False)
    with pytest.raises(SettingError, match=r"; and \d+ more; expected the same data, model, settings") as caught:
        learn.resume(run)
    assert len(str(caught.value)) < 600


def test_where_it_goes_on_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    learner("eager").fit_one_cycle(2, 1e-2, callbacks=[StopsAfter(7)], checkpoint=tmp_path, every="1 h")
    for words in ("resumes after 7 of 24 batches", "finished after 24 batches; it is loaded"):
        learn = learner("eager")
        learn.silent = False
        learn.resume(tmp_path, callbacks=[StopsAfter(0)])
        assert capsys.readouterr().out.startswith(f"{tmp_path}: {words}\n")


# --- failures --------------------------------------------------------------------------------------------------------


class Breaks(Callback):
    """Raises in the batch of this number, once."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def resume_settings(self) -> dict[str, Any]:
        return {}  # the resumed fit goes on to its end

    def on_batch_end(self, fit: Any) -> None:
        if fit.iteration == self.batch:
            self.batch = -1
            raise ZeroDivisionError("oops")


def test_what_a_fit_ended_with_is_written_down_until_it_goes_on(tmp_path: Path):
    plain, broken = learner("eager"), Breaks(15)
    plain.fit_one_cycle(2, 1e-2)
    with pytest.raises(ZeroDivisionError):
        learner("eager").fit_one_cycle(2, 1e-2, callbacks=[broken], checkpoint=tmp_path)
    run = RunFolder(tmp_path)
    assert run.read_failure() == "ZeroDivisionError: oops"
    with pytest.raises(SettingError, match="callbacks: Breaks"):
        learner("eager").resume(tmp_path)
    assert run.read_failure() is not None  # nothing has gone on
    resumed = learner("eager")
    resumed.resume(tmp_path, callbacks=[broken])
    assert run.read_failure() is None
    assert_equal(everything(resumed), everything(plain))


class NaNAfter(nn.Module):
    """Cross-entropy, and from the call after `good` ones on NaN."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good, self.calls = good, 0

    def forward(self, preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += torch.is_grad_enabled()
        loss = nn.functional.cross_entropy(preds, targets)
        return loss if self.calls <= self.good else loss * float("nan")


@pytest.mark.usefixtures("at_once")
def test_nothing_is_kept_after_a_loss_that_is_no_number(tmp_path: Path):
    learn = learner("eager", loss_func=NaNAfter(8))
    with pytest.raises(NonFiniteLossError, match="the loss became nan at step 8"):
        learn.fit_one_cycle(2, 1e-2, checkpoint=tmp_path, every=1)
    assert RunFolder(tmp_path).names()[0] == "0000000008"
    assert (RunFolder(tmp_path).read_failure() or "").startswith("the loss became nan at step 8 (epoch 0, batch 8)")


def test_a_failure_is_not_that_of_the_fit_before(run: Path):
    with pytest.raises(ZeroDivisionError):
        learner("eager").fit(1, 1e-2, callbacks=[Breaks(3)], checkpoint=CheckpointConfig(run, overwrite=True))
    assert RunFolder(run).read_failure() is None


def test_a_fit_that_failed_before_anything_was_kept_leaves_nothing(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        learner("eager").fit(1, 1e-2, callbacks=[Breaks(3)], checkpoint=tmp_path / "a")
    assert not list(tmp_path.glob("a/*"))


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_named_and_the_next_older_one_used(tmp_path: Path):
    plain = learner("eager")
    plain.fit_one_cycle(3, 1e-2)
    learner("eager").fit_one_cycle(3, 1e-2, checkpoint=CheckpointConfig(tmp_path, keep=3))
    newest, middle, oldest = RunFolder(tmp_path).names()
    for name in (newest, middle):
        path = tmp_path / "checkpoints" / name / "optimizer.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    resumed = learner("eager")
    with pytest.warns(UserWarning, match="damaged .* the next older checkpoint is used") as caught:
        resumed.resume(tmp_path)
    assert [name in str(warning.message) for warning, name in zip(caught, (newest, middle), strict=True)] == [True] * 2
    assert_equal(everything(resumed), everything(plain))
    assert oldest in RunFolder(tmp_path).names()
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob(".*")) == [
        f".{middle}.damaged",
        f".{newest}.damaged",
    ]


# --- annealing and extending -----------------------------------------------------------------------------------------


class AnnealsAfter(Callback):
    """Calls anneal_now in the first batch of the epoch."""

    def __init__(self, learn: Learner, epoch: int) -> None:
        self.learn, self.epoch = learn, epoch

    def on_epoch_begin(self, fit: Any) -> None:
        if fit.epoch == self.epoch:
            self.learn.anneal_now(2)


def test_annealing_ends_a_cycle_early():
    learn = learner("fast")
    learn.fit_one_cycle(10, 1e-2, callbacks=[AnnealsAfter(learn, 2)])
    record, batches = learn.recorder.record, len(learn.data.train_dl)
    assert len(record.epochs) == 5
    assert record.stopped is None
    whole = learner("fast")
    whole.fit_one_cycle(10, 1e-2)
    assert record.lrs[: 3 * batches] == whole.recorder.lrs[: 3 * batches]
    tail = record.lrs[3 * batches :]
    assert tail[0] == whole.recorder.lrs[3 * batches]
    assert all(a > b for a, b in zip(tail, tail[1:], strict=False))
    assert learn.opt is not None
    assert learn.opt.groups[0]["lr"] == pytest.approx(1e-2 / 25e4)


def test_annealing_after_a_stop():
    learn = learner("eager")
    learn.fit_one_cycle(4, 1e-2, callbacks=[StopsAfter(15)])
    last = learn.recorder.lrs[-1]
    learn.callbacks = []
    learn.anneal_now()
    lrs = learn.recorder.lrs
    assert len(lrs) == len(learn.data.train_dl)
    assert lrs[0] == pytest.approx(last, rel=0.1)
    assert learn.opt is not None
    assert learn.opt.groups[0]["lr"] == pytest.approx(1e-2 / 25e4)


@pytest.mark.parametrize("kept", [False, True])
def test_a_finished_fit_is_lengthened(tmp_path: Path, kept: bool):
    learn = learner("fast")
    learn.fit_one_cycle(2, 1e-2, checkpoint=tmp_path / "a" if kept else None)
    first = list(learn.recorder.record.batch_losses)
    learn.extend(3)
    record, batches = learn.recorder.record, len(learn.data.train_dl)
    assert record.epochs == [0, 1, 2, 3, 4]
    assert record.batch_losses[: 2 * batches] == first
    assert len(record.lrs) == 5 * batches
    longer = learner("fast")
    longer.fit_one_cycle(5, 1e-2)
    warm = max(3 * batches // 20, 1)
    assert record.lrs[2 * batches + warm :] == longer.recorder.lrs[2 * batches + warm :]
    assert learn.epochs_trained == 5
    if kept:
        other = learner("fast")
        other.resume(tmp_path / "a")
        assert_equal(everything(other), everything(learn))


def test_the_finder_does_not_end_what_can_be_lengthened():
    learn, other = learner("eager"), learner("eager")
    for each in (learn, other):
        each.fit_one_cycle(1, 1e-2)
    other.lr_find(num_it=12)
    for each in (learn, other):
        each.extend(1)
    assert_equal(everything(other), everything(learn))


def test_a_fit_is_not_lengthened_with_other_metrics():
    learn = learner("eager")
    learn.fit_one_cycle(1, 1e-2)
    learn.metrics.append(error_rate)
    with pytest.raises(SettingError, match=r"extend: the fit's metrics were \['accuracy'\]; expected the same"):
        learn.extend(1)


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("freezes", [False, True])
def test_a_fit_of_other_layer_groups_is_not_lengthened(stops: bool, freezes: bool):
    learn = learner("eager")
    learn.fit_one_cycle(2, 1e-2, callbacks=[StopsAfter(3)] if stops else None)
    learn.split(learn.model.lin2)
    if freezes:
        learn.freeze()
    before = list(learn.recorder.record.batch_losses)
    name, call = ("anneal_now", learn.anneal_now) if stops else ("extend", partial(learn.extend, 1))
    with pytest.raises(SettingError, match=f"{name}: the last fit had 1 layer group, the model has 2 now; expected"):
        call()
    assert learn.recorder.record.batch_losses == before


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("engine", ["eager", "fast"])
def test_a_schedule_for_other_layer_groups_is_refused(tmp_path: Path, engine: str, hook: str):
    class Sets(Callback):
        def set(self, fit: Any) -> None:
            fit.schedule = Constant([1e-2])

    setattr(Sets, hook, Sets.set)
    learn = learner(engine)
    with pytest.raises(SettingError, match="the schedule gives 1 learning rate for 2 layer groups; expected one for"):
        learn.split(learn.model.lin2).fit(2, 1e-2, callbacks=[Sets()], checkpoint=tmp_path / "run")
    assert not (tmp_path / "run" / ".lock").exists()


def test_there_must_be_a_fit():
    learn = learner("eager")
    for call in (learn.anneal_now, partial(learn.extend, 1)):
        with pytest.raises(SettingError, match="there was no fit yet"):
            call()
    learn.fit_one_cycle(2, 1e-2, callbacks=[StopsAfter(3)])
    with pytest.raises(SettingError, match="the last fit was stopped"):
        learn.extend(1)


def test_a_cycle_is_ended_early_once():
    class Insists(AnnealsAfter):
        def on_epoch_begin(self, fit: Any) -> None:
            if fit.epoch >= 1:
                self.learn.anneal_now()

    learn = learner("eager")
    learn.fit_one_cycle(6, 1e-2, callbacks=[Insists(learn, 1)])
    assert learn.recorder.record.epochs == [0, 1, 2]
    assert learn.recorder.record.settings["epochs"] == 3
    learn.fit_one_cycle(2, 1e-2, callbacks=[Insists(learn, 1)])
    assert learn.recorder.record.epochs == [0, 1]  # the last epoch ends it anyway
    with pytest.raises(SettingError, match="the last fit is finished; lengthen it with extend"):
        learn.anneal_now()


def test_callbacks_go_on_when_a_fit_is_lengthened(tmp_path: Path):
    learn = learner("eager", callback_fns=[lambda _: EMA(0.9), lambda _: SaveBest(tmp_path / "best")])
    learn.fit_one_cycle(2, 1e-2)
    with torch.no_grad():
        learn.data.train_dl.tensors[1].copy_(torch.zeros_like(learn.data.train_dl.tensors[1]))  # it can only get worse
    learn.extend(20)
    losses = [loss for loss in learn.recorder.val_losses if loss is not None]
    assert losses[-1] > min(losses)
    assert learn.validate()[0] == pytest.approx(min(losses))


def test_sigterm_acts_also_where_the_fit_fails(tmp_path: Path):
    heard = list[int]()

    class Fails(Callback):
        def on_epoch_end(self, fit: Any) -> None:
            signal.raise_signal(signal.SIGTERM)

        def on_train_end(self, fit: Any) -> None:
            raise ValueError("of the user's own")

    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with pytest.raises(ValueError, match="of the user's own"):
            learner("eager").fit(2, 1e-2, callbacks=[Fails()], checkpoint=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_hears_signals_as_before(tmp_path: Path):
    ended = list[int]()

    class Forks(Callback):
        def on_epoch_end(self, fit: Any) -> None:
            if not (pid := os.fork()):
                time.sleep(60)
                os._exit(0)
            time.sleep(0.1)
            os.kill(pid, signal.SIGTERM)
            ended.append(os.waitpid(pid, 0)[1])

    learner("eager").fit(1, 1e-2, callbacks=[Forks()], checkpoint=tmp_path)
    assert os.WTERMSIG(ended[0]) == signal.SIGTERM
