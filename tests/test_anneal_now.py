"""A fit that is ended early, from a callback or another thread."""

from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from conftest import Net, seeded
from onecycle import Callback, DataBunch, Learner


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
