"""A fit that is ended early by another thread, whenever that comes."""

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from conftest import Net, seeded
from onecycle import Callback, DataBunch, Learner, continuing
from onecycle.keep.fit_state import collect
from onecycle.train.position import Position


class Calls(Callback):
    """Lets `thread` run in the epoch, and waits until it has said that it is at work."""

    def __init__(self, thread: Thread, at_work: Event, next_epoch: Event, epoch: int) -> None:
        self.thread, self.at_work, self.next_epoch, self.epoch = thread, at_work, next_epoch, epoch

    def on_epoch_end(self, fit: Any) -> None:
        if fit.epoch == self.epoch:
            self.thread.start()
            assert self.at_work.wait(10)

    def on_batch_begin(self, fit: Any) -> None:
        if fit.epoch == self.epoch + 1:
            self.next_epoch.set()


@pytest.mark.parametrize("epoch", [0, 2, 4, 5])
def test_another_thread_anneals_while_the_next_epoch_begins(
    toy: DataBunch, monkeypatch: pytest.MonkeyPatch, epoch: int
):
    at_work, next_epoch = Event(), Event()
    annealed = continuing.annealed

    def slowly(*args: Any) -> Any:
        at_work.set()
        next_epoch.wait(0.2)  # comes only where the loop does not wait
        return annealed(*args)

    monkeypatch.setattr(continuing, "annealed", slowly)
    learn, whole = (Learner(toy, seeded(Net()), silent=True) for _ in range(2))

    def anneal() -> None:
        learn.anneal_now()
        at_work.set()  # also where there is nothing to do

    thread = Thread(target=anneal)
    learn.fit_one_cycle(6, 1e-2, callbacks=[Calls(thread, at_work, next_epoch, epoch)])
    thread.join(10)
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


def test_a_checkpoint_has_schedule_and_epochs_of_one_moment(toy: DataBunch, tmp_path: Path):
    """Another thread anneals between the two: the checkpoint is of before."""
    states = []

    class Anneals(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 3:
                states.append(collect(fit, [self], Position(0, 4, 4)))

        def state(self) -> dict[str, Any]:
            learn.anneal_now()
            return {}

    learn = Learner(toy, seeded(Net()), silent=True)
    learn.fit_one_cycle(4, 1e-2, callbacks=Anneals())
    values = states[0].values
    assert (values["epochs"], values["schedule"]["kind"]) == (4, "one cycle")
    assert len(learn.recorder.record.epochs) == 2
