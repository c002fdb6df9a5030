"""The ladder (by hand, torch.optim, Learner), reproducibility, and everything a fit leaves behind."""

import os
import signal
import threading
import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, GradientClip, Learner, accuracy, rmse
from onecycle.errors import DataError, ModelError, NonFiniteLossError, SettingError


def learner(data: DataBunch, model: nn.Module | None = None, **options: Any) -> Learner:
    return Learner(data, model or seeded(Net()), metrics=accuracy, silent=True, **options)


# --- the ladder -----------------------------------------------------------------------------------------------------


def test_three_ways_to_the_same_losses(toy: DataBunch):
    lr = 0.1
    by_hand = seeded(Net())
    hand_losses = []
    for x, y in toy.train_dl.epoch(0):
        loss = F.cross_entropy(by_hand(x), y)
        loss.backward()
        with torch.no_grad():
            for parameter in by_hand.parameters():
                parameter.sub_(lr * parameter.grad)
                parameter.grad.zero_()
        hand_losses.append(loss.item())

    model = seeded(Net())
    opt = SGD(model.parameters(), lr)
    optim_losses = []
    for x, y in toy.train_dl.epoch(0):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
        optim_losses.append(loss.item())

    learn = learner(toy, opt_func=SGD, wd=0.0)
    learn.fit(1, lr)
    assert optim_losses == pytest.approx(hand_losses, rel=1e-6)
    assert learn.recorder.record.batch_losses == pytest.approx(hand_losses, rel=1e-6)
    assert [p.tolist() for p in learn.model.parameters()] == [pytest.approx(p.tolist(), abs=1e-6) if p.ndim == 1 else
        [pytest.approx(row, abs=1e-6) for row in p.tolist()] for p in by_hand.parameters()]  # fmt: skip


def test_adam_agrees_with_torchs_adamw(toy: DataBunch):
    model = seeded(Net())
    opt = torch.optim.AdamW(model.parameters(), 1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    losses = []
    for epoch in range(2):
        for x, y in toy.train_dl.epoch(epoch):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
    learn = learner(toy, wd=0.1)
    learn.fit(2, 1e-2)
    assert learn.recorder.record.batch_losses == pytest.approx(losses, rel=1e-5)


def test_smoothing_and_averages_are_those_of_the_lesson(toy: DataBunch):
    learn = learner(toy)
    learn.fit(2, 1e-2)
    record, mean = learn.recorder.record, 0.0
    for n, (loss, smooth) in enumerate(zip(record.batch_losses, record.losses, strict=True), start=1):
        mean = 0.98 * mean + 0.02 * loss
        assert smooth == pytest.approx(mean / (1 - 0.98**n))
    x, y = toy.valid_ds.tensors
    with torch.no_grad():
        out = learn.model(x)
    assert record.val_losses[-1] == pytest.approx(F.cross_entropy(out, y).item(), rel=1e-5)
    assert record.metrics[-1][0] == pytest.approx((out.argmax(1) == y).float().mean().item())
    assert learn.validate() == pytest.approx([record.val_losses[-1], *record.metrics[-1]])


# --- the same seed, the same run ------------------------------------------------------------------------------------


class Dropping(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin2(F.dropout(torch.relu(self.lin1(x)), 0.5, self.training))


def run(seed: int, noise: int = 0) -> tuple[list[float], Learner]:
    torch.manual_seed(noise)  # must not matter
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=seed)
    learn = learner(data, seeded(Dropping()))
    learn.fit_one_cycle(1, 1e-2)
    torch.rand(3)
    learn.fit(1, 1e-3)
    return learn.recorder.record.batch_losses, learn


def test_a_run_is_a_function_of_its_seed():
    first, second, other = run(1)[0], run(1, noise=5)[0], run(2)[0]
    assert first == second
    assert first != other


def test_the_global_generators_are_left_as_they_were(toy: DataBunch):
    torch.manual_seed(4)
    expected = torch.rand(2)
    learn = learner(toy, seeded(Dropping()))
    torch.manual_seed(4)
    learn.lr_find(num_it=20)
    learn.fit_one_cycle(1, 1e-2)
    learn.get_preds()
    assert torch.equal(torch.rand(2), expected)


def test_epochs_of_a_second_fit_go_on_in_new_orders(toy: DataBunch):
    seen: list[list[int]] = []

    class Watch(Callback):
        def on_batch_begin(self, fit):
            if fit.num_batch == 0:
                seen.append(fit.yb.tolist())

    learn = learner(toy, callbacks=Watch())
    learn.fit(2, 1e-3)
    learn.fit(1, 1e-3)
    expected = [next(iter(toy.train_dl.epoch(k)))[1].tolist() for k in range(3)]
    assert seen == expected


# --- what persists and what does not --------------------------------------------------------------------------------


def test_moments_persist_across_fits_and_momentum_stays_where_the_cycle_left_it(toy: DataBunch):
    learn = learner(toy)
    assert learn.opt is None
    learn.fit_one_cycle(1, 1e-2, moms=(0.93, 0.8))
    opt = learn.opt
    assert opt.momentum == pytest.approx(0.93)
    assert opt.groups[0]["lr"] == pytest.approx(1e-2 / 25e4)
    steps = opt.torch_opt.state[learn.model.lin1.weight]["step"].item()
    learn.fit(1, 1e-3, wd=0.3)
    assert learn.opt is opt
    assert learn.recorder.moms == pytest.approx([0.93] * 12)
    assert learn.recorder.lrs == [1e-3] * 12
    assert opt.torch_opt.state[learn.model.lin1.weight]["step"].item() == steps + 12
    assert [group["weight_decay"] for group in opt.groups] == [0.3, 0.3]


def test_a_cycle_that_is_cut_short_leaves_the_momentum_of_the_next_step(toy: DataBunch):
    class StopAt(Callback):
        def on_batch_end(self, fit):
            if fit.iteration == 4:
                fit.stop("enough")

    learn = learner(toy)
    learn.fit_one_cycle(2, 1e-2, callbacks=[StopAt()])
    whole = learner(toy)
    whole.fit_one_cycle(2, 1e-2)
    assert len(learn.recorder.losses) == 5
    assert learn.opt.momentum == pytest.approx(whole.recorder.moms[5])
    assert learn.recorder.stopped == "enough"
    assert learn.recorder.record.rows() == []


def test_freezing_makes_the_optimizer_anew(toy: DataBunch):
    learn = learner(toy)
    learn.split(learn.model.lin2)
    learn.fit_one_cycle(1, slice(1e-4, 1e-2))
    assert [learn.opt.groups[i]["lr"] for i in (0, 2)] == pytest.approx([1e-4 / 25e4, 1e-2 / 25e4])
    learn.freeze()
    before = learn.model.lin1.weight.clone()
    learn.fit(1, 1e-2)
    assert learn.recorder.moms == [0.9] * 12  # the new optimizer's own
    assert torch.equal(learn.model.lin1.weight, before)
    learn.unfreeze()
    learn.fit(1, 1e-2)
    assert not torch.equal(learn.model.lin1.weight, before)


def test_freezing_one_group_is_refused(toy: DataBunch):
    with pytest.raises(SettingError, match=r"freeze: the model has one layer group; cut it first"):
        learner(toy).freeze()


def test_discriminative_rates_are_the_last_groups_in_the_record(toy: DataBunch):
    learn = learner(toy).split(lambda m: [m.lin2])
    learn.fit(1, slice(1e-3))
    assert learn.recorder.lrs == [1e-3] * 12
    assert [group["lr"] for group in learn.opt.groups] == pytest.approx([1e-4, 1e-4, 1e-3, 1e-3])


def test_sgd_gets_the_cycles_momentum(toy: DataBunch):
    learn = learner(toy, opt_func=partial(SGD, momentum=0.9))
    learn.fit_one_cycle(1, 1e-2)
    assert learn.recorder.moms[3] == pytest.approx(0.85)


def test_a_fit_of_no_epochs_changes_nothing(toy: DataBunch):
    learn = learner(toy)
    before = [p.clone() for p in learn.model.parameters()]
    learn.fit(0, 1e-2)
    learn.fit_one_cycle(0, 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True))
    assert learn.recorder.record.rows() == []


def test_without_validation_the_table_says_na(toy: DataBunch):
    toy.valid_dl = None
    learn = learner(toy)
    learn.fit(1, 1e-2)
    epoch, train, valid, metric, _ = learn.recorder.record.row()
    assert (epoch, valid, metric) == ("0", "#na#", "#na#")
    assert train == f"{learn.recorder.losses[-1]:.6f}"


def test_the_model_ends_in_eval_mode(toy: DataBunch):
    learn = learner(toy)
    learn.fit(1, 1e-2)
    assert not learn.model.training


# --- stopping -------------------------------------------------------------------------------------------------------


def test_ctrl_c_finishes_the_step_and_keeps_the_partial_record(toy: DataBunch):
    class PressCtrlC(Callback):
        def on_backward_begin(self, fit):
            if fit.iteration == 20:
                os.kill(os.getpid(), signal.SIGINT)

    learn = learner(toy, callbacks=PressCtrlC())
    learn.fit(5, 1e-2)
    assert learn.recorder.stopped == "interrupted"
    assert len(learn.recorder.losses) == 21
    assert learn.recorder.record.epochs == [0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    learn.callbacks.clear()
    learn.fit(1, 1e-2)
    assert learn.recorder.stopped is None


def test_a_second_ctrl_c_ends_at_once(toy: DataBunch):
    class PressTwice(Callback):
        def on_backward_begin(self, fit):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    learn = learner(toy, callbacks=PressTwice())
    with pytest.raises(KeyboardInterrupt):
        learn.fit(5, 1e-2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_fit_in_a_thread_needs_no_signals(toy: DataBunch):
    learn = learner(toy)
    thread = threading.Thread(target=lambda: learn.fit(1, 1e-2))
    thread.start()
    thread.join()
    assert len(learn.recorder.losses) == 12


def test_a_loss_that_turns_nan_stops_the_fit_and_says_where(toy: DataBunch):
    class Break(Callback):
        def on_batch_end(self, fit):
            if fit.iteration == 14:
                with torch.no_grad():
                    fit.model.lin2.bias.fill_(float("nan"))

    learn = learner(toy, callbacks=Break())
    with pytest.raises(
        NonFiniteLossError, match=r"the loss became nan at step 15 \(epoch 1, batch 3\), lr 0.01;.*lower"
    ):
        learn.fit(3, 1e-2)
    assert learn.recorder.record.epochs == [0]


def test_an_error_in_a_callback_is_the_users_own_and_the_learner_goes_on(toy: DataBunch):
    class Broken(Callback):
        def on_batch_end(self, fit):
            raise ZeroDivisionError("mine")

    learn = learner(toy)
    with pytest.raises(ZeroDivisionError, match="mine"):
        learn.fit(1, 1e-2, callbacks=[Broken()])
    learn.fit(1, 1e-2)


# --- loaders of other kinds -----------------------------------------------------------------------------------------


def test_a_torch_loader_trains_like_the_one_in_memory():
    x, y = toy_arrays()
    dataset = torch.utils.data.TensorDataset(x, y)
    in_order = DataBunch(torch.utils.data.DataLoader(dataset, 20), torch.utils.data.DataLoader(dataset, 20))
    in_memory = DataBunch.create(dataset, dataset, bs=20)
    in_memory.train_dl.shuffle = False
    losses = []
    for data in (in_order, in_memory):
        learn = learner(data)
        learn.fit(2, 1e-2)
        losses.append(learn.recorder.losses)
    assert losses[0] == losses[1]


def test_several_inputs(toy: DataBunch):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(21, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.lin(torch.cat([a, b[:, None].float()], 1))

    x, y = toy_arrays()
    data = DataBunch.create((x, torch.arange(200), y), (x, torch.arange(200), y), bs=16)
    learn = learner(data, Two())
    learn.fit(1, 1e-4)
    assert len(learn.recorder.losses) == 12


def test_regression_by_default_for_float_targets():
    x, _ = toy_arrays()
    data = DataBunch.create((x, x.sum(1)), (x, x.sum(1)), bs=16, seed=0)
    learn = Learner(data, seeded(Net(outputs=1)), silent=True)
    learn.fit_one_cycle(10, 3e-2)
    assert learn.recorder.val_losses[-1] < 0.2 * x.sum(1).var().item()
    value, same, output = learn.predict(x[0])
    assert value == pytest.approx(output.item())
    assert torch.equal(same, output)


# --- what does not fit together -------------------------------------------------------------------------------------


def test_labels_outside_the_models_outputs(toy: DataBunch):
    with pytest.raises(
        DataError, match=r"train: labels contain 3; the model has 3 classes \(0-2\): give the model's last"
    ):
        learner(toy, Net(outputs=3)).fit(1, 1e-2)


def test_labels_outside_in_validation_only():
    x, y = toy_arrays()
    data = DataBunch.create((x, y % 3), (x, y), bs=16)
    with pytest.raises(DataError, match=r"valid: labels contain 3; the model has 3 classes \(0-2\)"):
        learner(data, Net(outputs=3)).fit(1, 1e-2)


def test_float_labels_with_cross_entropy():
    x, y = toy_arrays()
    learn = learner(DataBunch.create((x, y.float()), bs=16), loss_func=nn.CrossEntropyLoss())
    with pytest.raises(
        DataError, match=r"train.y holds floats \(for example 0\); cross-entropy expects whole-number class"
    ):
        learn.fit(1, 1e-2)


def test_rows_of_the_wrong_width(toy: DataBunch):
    expected = r"train.x has 20 columns \(shape \((16|2), 20\)\); the model's first Linear layer \(lin1\) takes 30"
    for learn in (learner(toy, Net(30)), learner(DataBunch.create(toy_arrays(), bs=2), Net(30))):
        with pytest.raises(ModelError, match=expected):
            learn.fit(1, 1e-2)


def test_the_same_errors_from_torch_loaders():
    x, y = toy_arrays()
    data = DataBunch(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 16))
    with pytest.raises(ModelError, match=r"train.x has 20 columns \(shape \(16, 20\)\)"):
        learner(data, Net(30)).fit(1, 1e-2)
    with pytest.raises(DataError, match="labels contain 3; the model has 3 classes"):
        learner(data, Net(outputs=3)).fit(1, 1e-2)


def test_no_targets():
    learn = learner(DataBunch.create(toy_arrays()[0], bs=16))
    with pytest.raises(DataError, match="train has no targets; expected a pair"):
        learn.fit(1, 1e-2)


@pytest.mark.parametrize("epochs", [-1, 1.5, "2", True])
def test_epochs_that_cannot_be_used(toy: DataBunch, epochs: Any):
    with pytest.raises(SettingError, match=r"epochs is .*; expected a whole number of at least 0"):
        learner(toy).fit(epochs, 1e-2)
    with pytest.raises(SettingError, match=r"cyc_len is .*; expected a whole number of at least 0"):
        learner(toy).fit_one_cycle(epochs, 1e-2)


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf")])
def test_rates_that_cannot_be_used(toy: DataBunch, lr: float):
    for call in (
        lambda learn: learn.fit(1, lr),
        lambda learn: learn.fit_one_cycle(1, lr),
        lambda learn: learn.lr_find(lr),
    ):
        with pytest.raises(SettingError, match=r"lr is .*; expected a finite number above 0, for example 1e-2"):
            call(learner(toy))


def test_settings_of_the_cycle_that_cannot_be_used(toy: DataBunch):
    with pytest.raises(SettingError, match="pct_start is 1.5; expected a share of the cycle, from 0 to 1"):
        learner(toy).fit_one_cycle(1, 1e-2, pct_start=1.5)
    with pytest.raises(SettingError, match="div_factor is 0; expected a finite number above 0"):
        learner(toy).fit_one_cycle(1, 1e-2, div_factor=0)


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_clipping_is_torchs(toy: DataBunch):
    model = seeded(Net())
    opt = SGD(model.parameters(), 0.5)
    for x, y in toy.train_dl.epoch(0):
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        opt.step()
        opt.zero_grad()
    learn = learner(toy, opt_func=SGD, wd=0.0)
    learn.callbacks.append(GradientClip(0.1))
    learn.fit(1, 0.5)
    for found, expected in zip(learn.model.parameters(), model.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


# --- natural mistakes ---------------------------------------------------------------------------------------------------


X, Y = toy_arrays(64)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (X, Y[:, None], {}, r"train.y has shape \(64, 1\); cross-entropy expects one label a row: use y.squeeze\(1\)"),
        (X, F.one_hot(Y), {}, r"train.y has shape \(64, 4\); .*: use y.argmax\(1\) if it is one-hot"),
        (X.long(), Y, {}, "train.x is int64 and the model's weights are float32; expected the same: use x.float"),
        (X.half(), Y, {}, "train.x is float16 and the model's weights are float32; expected the same: use x.float"),
        (
            X,
            X[:, :3],
            {},
            r"the model returns \(4,\) for a row and y has \(3,\); expected one output per target column",
        ),
        (X, X[:, :1], {"loss_func": nn.CrossEntropyLoss()}, "train.y holds floats"),
        (
            X,
            Y,
            {"loss_func": nn.CrossEntropyLoss(reduction="none")},
            r"the loss function returns a tensor of shape \(16,\); exp",
        ),
        (
            X,
            Y,
            {"model": nn.Sequential(nn.Linear(20, 8), nn.Linear(9, 4))},
            r"Linear layer \(1\) takes 9 columns and gets 8",
        ),
    ],
)
def test_natural_mistakes(x: torch.Tensor, y: torch.Tensor, options: dict[str, Any], message: str):
    learn = learner(DataBunch.create((x, y), bs=16), **options)
    for call in (lambda: learn.fit(1, 1e-2), learn.lr_find):
        with pytest.raises((DataError, ModelError), match=message):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: Learner(Net(), d), "Learner takes a DataBunch, not a Net; see DataBunch.create"),
        (lambda d: Learner((X, Y), Net()), "Learner takes a DataBunch, not a tuple"),
        (lambda d: Learner(d, Net), "model is <class .*; expected an instance of torch.nn.Module"),
        (lambda d: Learner(d, Net(), metrics=[Net]), r"metrics: Net is a class; expected Net\(...\)"),
        (
            lambda d: Learner(d, Net(), metrics="accuracy"),
            "metrics: 'accuracy' is not a function; expected, for example",
        ),
        (
            lambda d: Learner(d, Net(), loss_func=nn.CrossEntropyLoss),
            r"the class CrossEntropyLoss; expected CrossEntropyLoss\(\)",
        ),
        (lambda d: DataBunch((X, Y)), r"DataBunch takes loaders, not a tuple; did you mean DataBunch.create"),
        (lambda d: DataBunch.create(X, Y), r"did you mean DataBunch.create\(\(x, y\), \(x_valid, y_valid\)\)\?"),
        (lambda d: DataBunch.create([[[1.0], [1.0, 2.0]], [0, 1]]), "train.x has rows of different lengths"),
        (lambda d: Learner(d, Net()).fit(1, Learner(d, Net(), silent=True).lr_find()), "lr is LRFindResult"),
        (
            lambda d: Learner(d, Net()).fit_one_cycle(1, 1e-2, moms=(1.5, 0.9)),
            "moms is 1.5; expected momentum, from 0 to 1",
        ),
        (
            lambda d: Learner(d, Net()).predict(d.valid_ds[0]),
            r"row is a tuple; expected x alone, for example data.valid_ds\[0\]\[0\]",
        ),
    ],
)
def test_wrong_things_at_the_door(toy: DataBunch, call: Any, message: str):
    with pytest.raises((DataError, SettingError), match=message):
        call(toy)


def test_a_metric_for_another_kind_of_target_is_refused_before_the_first_step(toy: DataBunch):
    learn = Learner(toy, seeded(Net()), metrics=[accuracy, rmse])
    before = [parameter.clone() for parameter in learn.model.parameters()]
    with pytest.raises(DataError, match="rmse: the model returns .* rmse is for regression"):
        learn.fit(1)
    assert all(torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True))


def test_loaders_without_batches():
    x, y = toy_arrays(10)
    short = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 64, drop_last=True)
    for call in (lambda learn: learn.fit(1, 1e-2), lambda learn: learn.lr_find()):
        with pytest.raises(DataError, match="the training loader has no batches"):
            call(learner(DataBunch(short)))


class Rows(torch.utils.data.Dataset):
    """A data set that is not in memory."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int):
        return self.x[i], self.y[i]


def test_a_regression_that_is_not_in_memory_is_one():
    data = DataBunch.create(Rows(X, X[:, :1]), Rows(X, X[:, :1]), bs=16, seed=1)
    learn = Learner(data, seeded(Net(outputs=1)), silent=True)
    learn.fit_one_cycle(5, 3e-2)
    assert learn.loss_func.__name__ == "flat_mse_loss"
    assert learn.recorder.val_losses[-1] < X[:, 0].var()


def test_a_classifier_that_is_not_in_memory_predicts_classes():
    learn = learner(DataBunch.create(Rows(X, Y), Rows(X, Y), bs=16, seed=1))
    learn.fit_one_cycle(5, 1e-2)
    assert learn.predict(X[3])[0] == 3
    from onecycle import ClassificationInterpretation

    assert ClassificationInterpretation.from_learner(learn).confusion_matrix().shape == (4, 4)


def test_numbers_of_numpy_are_numbers(toy: DataBunch):
    import numpy as np

    x, y = toy_arrays()
    learn = learner(DataBunch.create((x, y), bs=np.int64(16), seed=np.int64(1)), wd=np.float32(0.1))
    learn.fit_one_cycle(np.int64(1), np.float32(1e-2), moms=0.9)
    learn.fit(1, torch.tensor(1e-3))
    assert learn.recorder.lrs[0] == pytest.approx(1e-3)


def test_a_partial_cross_entropy_is_one():
    from functools import partial

    learn = learner(DataBunch.create((X, Y), (X, Y), bs=16), loss_func=partial(F.cross_entropy, label_smoothing=0.1))
    assert torch.allclose(learn.get_preds()[0].sum(1), torch.ones(64))
