import pytest

from conftest import Net
from onecycle import Callback, DataBunch, GradientClip, Learner
from onecycle.core.errors import SettingError
from onecycle.train.callbacks import HOOKS, overridden


def test_there_are_eight_hooks():
    assert (
        *("on_train_begin", "on_epoch_begin", "on_batch_begin", "on_backward_begin"),
        *("on_backward_end", "on_batch_end", "on_epoch_end", "on_train_end"),
    ) == HOOKS


def test_hooks_come_in_their_order(toy: DataBunch):
    calls: list[str] = []
    watch = type("Watch", (Callback,), {name: lambda self, fit, name=name: calls.append(name) for name in HOOKS})
    made_for: list[Learner] = []

    def make(learn: Learner) -> Callback:
        made_for.append(learn)
        return watch()

    learn = Learner(toy, Net(), callback_fns=make, silent=True)
    learn.fit(2, 1e-3)
    assert made_for == [learn]
    batch = ["on_batch_begin", "on_backward_begin", "on_backward_end", "on_batch_end"]
    epoch = ["on_epoch_begin", *batch * 12, "on_epoch_end"]
    assert calls == ["on_train_begin", *epoch * 2, "on_train_end"]


def test_a_hook_sees_where_the_training_stands(toy: DataBunch):
    seen = []

    class Watch(Callback):
        def on_batch_end(self, fit):
            seen.append((fit.epoch, fit.iteration, fit.num_batch, fit.loss.item(), len(fit.xb), fit.opt.mom))

        def on_epoch_end(self, fit):
            seen.append(fit.record.row()[0])

    learn = Learner(toy, Net(), callbacks=[Watch()], silent=True)
    learn.fit(2, 1e-3)
    assert [entry for entry in seen if isinstance(entry, str)] == ["0", "1"]
    batches = [entry for entry in seen if not isinstance(entry, str)]
    assert [entry[:3] for entry in batches[11:14]] == [(0, 11, 11), (1, 12, 0), (1, 13, 1)]
    assert [entry[3] for entry in batches] == pytest.approx(learn.recorder.record.batch_losses)
    assert batches[0][4:] == (16, 0.9)


def test_a_hook_nobody_overrides_is_not_called():
    assert not any(overridden([Callback()]).values())
    hooks = overridden([Callback(), GradientClip(1.0)])
    assert [name for name, found in hooks.items() if found] == ["on_backward_end"]


def test_inputs_and_losses_can_be_replaced(toy: DataBunch):
    class Halve(Callback):
        def on_batch_begin(self, fit):
            fit.xb, fit.yb = fit.xb[:8], fit.yb[:8]

        def on_backward_begin(self, fit):
            fit.loss = fit.loss * 0

    learn = Learner(toy, Net(), callbacks=[Halve()], wd=0.0, silent=True)
    before = learn.model.lin1.weight.clone()
    learn.fit(1, 1e-2)
    assert (learn.model.lin1.weight == before).all()  # the loss that was stepped on is 0
    assert min(learn.recorder.record.batch_losses) > 0  # the record has the loss function's


def test_what_is_no_callback_and_what_is_no_hook():
    with pytest.raises(SettingError, match="callbacks: 3 is not a Callback; derive its class from onecycle.Callback"):
        overridden([3])  # pyright: ignore

    class Typo(Callback):
        def on_batch_ends(self, fit):
            pass

    with pytest.raises(SettingError, match='Typo has no hook on_batch_ends to override; did you mean "on_batch_end"?'):
        overridden([Typo()])


def test_clipping_at_nothing():
    with pytest.raises(SettingError, match="GradientClip's max_norm is 0; expected a finite number above 0"):
        GradientClip(0)
