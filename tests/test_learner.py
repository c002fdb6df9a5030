"""The learner: its record, its validation, annealing early, and loading from a bundle."""

from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import Net, seeded, toy_arrays
from onecycle import MLP, Callback, DataBunch, Learner, accuracy, load_learner
from onecycle.errors import DataError
from onecycle.train.losses import NamedLoss, flat_mse_loss, loss_by_name, loss_name


@pytest.fixture
def learn(toy: DataBunch) -> Learner:
    learner = Learner(toy, seeded(Net()), metrics=accuracy, silent=True)
    learner.fit_one_cycle(3, 1e-2)
    return learner


def test_the_record_says_what_the_fit_was_made_of(learn: Learner):
    settings = learn.recorder.record.settings
    assert [settings[key] for key in ("optimizer", "loss", "model")] == ["AdamW", "CrossEntropyLoss", "Net"]
    assert (settings["parameters"], settings["seed"], settings["bs"], settings["moms"]) == (204, 3, 16, [0.95, 0.85])
    coupled = Learner(learn.data, seeded(Net()), true_wd=False, silent=True)
    coupled.fit(1, 1e-3)
    assert coupled.recorder.record.settings["optimizer"] == "Adam"


def test_validating_another_loader(learn: Learner):
    assert learn.validate("train") == pytest.approx(learn.validate(learn.data.fix_dl), rel=1e-6)
    assert learn.validate("train")[1] > 0.8


def test_batch_sizes_weigh_the_averages():
    x, y = toy_arrays(10)
    data = DataBunch.create((x, y), (x, y), bs=5, val_bs=7)
    learner = Learner(data, seeded(Net()), metrics=lambda out, target: torch.tensor(float(len(target))), silent=True)
    assert learner.validate()[1] == pytest.approx((7 * 7 + 3 * 3) / 10)


def test_metrics_may_give_plain_numbers(toy: DataBunch):
    def rows(preds, targets):
        return len(targets)

    learner = Learner(toy, Net(), metrics=[rows], silent=True)
    learner.fit(1, 1e-3)
    assert learner.recorder.record.metric_names == ["rows"]
    assert learner.recorder.metrics[0][0] == pytest.approx((16 * 48 + 2 * 2) / 50)


def test_after_a_stopped_fit_the_batches_go_on_with_the_next_order(toy: DataBunch):
    class Sees(Callback):
        def __init__(self, stop_after: int | None = None) -> None:
            self.rows, self.stop_after = list[float](), stop_after

        def on_batch_begin(self, fit: Any) -> None:
            self.rows += fit.xb[:, 0].tolist()

        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == self.stop_after:
                fit.stop("enough")

    batches = len(toy.train_dl)
    whole = Sees()
    Learner(toy, Net(), silent=True).fit(4, 1e-3, callbacks=whole)
    orders = [whole.rows[i * batches * 16 : (i + 1) * batches * 16] for i in range(4)]
    for stop_after, epochs in ((batches - 1, 1), (batches, 2), (2 * batches - 1, 2), (None, 3)):
        learn, then = Learner(toy, Net(), silent=True), Sees()
        learn.fit(3, 1e-3, callbacks=Sees(stop_after))
        assert learn.epochs_trained == epochs
        learn.fit(1, 1e-3, callbacks=then)
        assert then.rows == orders[epochs]
        learn.fit(0, 1e-3)
        assert learn.epochs_trained == epochs + 1


class AnnealsInAThread(Callback):
    """Calls `anneal_now` in another thread at the end of an epoch, or in the middle of it."""

    def __init__(self, learn: Learner, epoch: int, batch: int | None) -> None:
        self.learn, self.epoch, self.batch = learn, epoch, batch

    def anneal(self) -> None:
        thread = Thread(target=self.learn.anneal_now)
        thread.start()
        thread.join(10)

    def on_epoch_end(self, fit: Any) -> None:
        if fit.epoch == self.epoch and self.batch is None:
            self.anneal()

    def on_batch_end(self, fit: Any) -> None:
        if (fit.epoch, fit.num_batch) == (self.epoch, self.batch):
            self.anneal()


@pytest.mark.parametrize("epoch", [0, 2, 4, 5])
@pytest.mark.parametrize("batch", [None, 0, 11])
def test_another_thread_anneals_from_the_next_epoch_on(toy: DataBunch, epoch: int, batch: int | None):
    learn, whole = (Learner(toy, seeded(Net()), silent=True) for _ in range(2))
    learn.fit_one_cycle(6, 1e-2, callbacks=AnnealsInAThread(learn, epoch, batch))
    whole.fit_one_cycle(6, 1e-2)
    record, batches = learn.recorder.record, len(toy.train_dl)
    begun = epoch + 1
    assert len(record.epochs) == min(begun + 1, 6)
    assert record.stopped is None
    assert record.lrs[: begun * batches] == whole.recorder.lrs[: begun * batches]
    tail = record.lrs[begun * batches :]
    assert all(a > b for a, b in zip(tail, tail[1:], strict=False))
    assert learn.opt is not None
    assert learn.opt.groups[0]["lr"] == pytest.approx(1e-2 / 25e4)


def test_a_request_while_the_checkpoint_of_an_epoch_is_taken_is_not_late(toy: DataBunch, tmp_path: Path):
    class AsksInItsState(Callback):
        def state(self) -> dict[str, Any]:
            learn.anneal_now()
            return {}

    learn = Learner(toy, seeded(Net()), silent=True)
    learn.fit_one_cycle(6, 1e-2, callbacks=AsksInItsState(), checkpoint=tmp_path / "run")
    assert len(learn.recorder.record.epochs) == 2


def test_a_fit_that_was_asked_to_anneal_resumes_so(toy: DataBunch, tmp_path: Path):
    """A checkpoint after the request has the new schedule, whichever of them a fit resumes from."""

    class StopsAfter(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 20:
                fit.stop("interrupted")

    class Anneals(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 3:
                learn.anneal_now(2)

    learn = Learner(toy, seeded(Net()), silent=True)
    learn.fit_one_cycle(6, 1e-2, callbacks=[Anneals()])
    expected = learn.recorder.record
    learn = Learner(toy, seeded(Net()), silent=True)
    learn.fit_one_cycle(6, 1e-2, callbacks=[Anneals(), StopsAfter()], checkpoint=tmp_path / "run", every=5)
    learn = Learner(toy, seeded(Net()), silent=True)
    learn.resume(tmp_path / "run", callbacks=[Anneals(), StopsAfter()])
    assert learn.recorder.record.batch_losses == expected.batch_losses
    assert len(expected.epochs) == 3


def floats() -> DataBunch:
    """Rows with four targets of 0 or 1, as floats: the default loss is mean squared error."""
    (x, y), (x_valid, y_valid) = toy_arrays(), toy_arrays(50, seed=1)
    return DataBunch.create((x, F.one_hot(y, 4).float()), (x_valid, F.one_hot(y_valid, 4).float()), bs=16, seed=3)


def loaded(folder: Path, loss_func: Any) -> tuple[Learner, Learner]:
    """A learner with that loss, and what its bundle makes with the same data."""
    learn = Learner(floats(), seeded(MLP(20, 8, 4)), loss_func=loss_func, silent=True)
    again = load_learner(learn.export(folder / "b"), data=learn.data)
    again.silent = True
    return learn, again


@pytest.mark.parametrize(
    "loss_func",
    [nn.BCEWithLogitsLoss(), nn.L1Loss(), F.binary_cross_entropy_with_logits, F.huber_loss, flat_mse_loss, None],
    ids=lambda loss_func: loss_name(loss_func) if loss_func else "default",
)
def test_the_loss_comes_back_with_data(tmp_path: Path, loss_func: Any):
    learn, again = loaded(tmp_path, loss_func)
    assert again.validate() == pytest.approx(learn.validate())
    x = learn.data.valid_ds.tensors[0]
    without = load_learner(tmp_path / "b", device="cpu")
    for each in (again, without):
        assert torch.allclose(each.get_preds(x)[0], learn.get_preds(x)[0], atol=1e-6)


def test_settings_of_a_loss_are_not_kept(tmp_path: Path):
    again = loaded(tmp_path, partial(F.smooth_l1_loss, beta=2.0))[1]
    assert again.loss_func is F.smooth_l1_loss


def cross_entropy_of_its_own(preds: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(preds, targets)


@pytest.mark.parametrize("loss_func", [cross_entropy_of_its_own, lambda preds, y: F.mse_loss(preds, y)])
def test_a_loss_that_nobody_knows_is_asked_for(tmp_path: Path, loss_func: Any):
    learn, again = loaded(tmp_path, loss_func)
    assert isinstance(again.loss_func, NamedLoss)
    assert torch.equal(again.get_preds()[0], learn.get_preds()[0])
    for call in (again.validate, partial(again.fit, 1)):
        with pytest.raises(
            DataError, match=rf"name of its loss \({loss_name(loss_func)}\); set learn.loss_func to use"
        ):
            call()
    again.loss_func = loss_func
    assert again.validate() == pytest.approx(learn.validate())


@pytest.mark.parametrize(
    "name", ["Module", "Linear", "_Loss", "__all__", "LinearCrossEntropyLoss", "relu", "<lambda>", ""]
)
def test_a_name_in_a_bundle_makes_a_loss_or_nothing(name: str):
    assert isinstance(loss_by_name(name), NamedLoss)
    assert loss_name(loss_by_name(name)) == name
