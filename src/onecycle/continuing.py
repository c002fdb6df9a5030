"""Continuing: a fit that was kept, stopped or finished, gone on with."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from onecycle.core.checks import whole
from onecycle.core.errors import SettingError
from onecycle.keep.resuming import Kept
from onecycle.optim.schedules import Annealed, Constant, annealed, extended
from onecycle.show.progress import make_display
from onecycle.train.callbacks import Callback
from onecycle.train.metrics import metric_name
from onecycle.train.position import Position
from onecycle.train.recorder import Recorder
from onecycle.trainer import TURNING, Job, Trainer


class Continuing(Trainer):
    """What a Learner does with a fit that there is already."""

    def resume(self, folder: str | Path, callbacks: Sequence[Callback] | None = None) -> None:
        """Go on with the fit that is kept in the folder of a run, from its newest checkpoint that is whole.

        The learner is made as the one of the run was: then the finished run equals one that was never stopped, bit for
        bit on the same device with as many threads. `callbacks` are those that the fit was given. A fit that is over
        is only loaded. Raises FileError where there is no checkpoint, SettingError where the run is in use, or data,
        model or settings are others, by the names of what differs.
        """
        made = self._all_callbacks(callbacks)
        names, batches = [type(callback).__name__ for callback in made], len(self.data.train_dl)
        kept = Kept.newest(folder, self._identity, names, batches, len(self.layer_groups))
        recorder = Recorder(kept.record)
        recorder.go_on()
        make_display(self.silent).say(kept.where(batches))
        self._fit(
            Job(
                kept.epochs,
                kept.schedule,
                kept.wd,
                callbacks,
                recorder,
                checkpoints=kept.checkpoints,
                start=kept.position,
                first_epoch=kept.first_epoch,
                kept=kept,
                made=made,
            )
        )

    def anneal_now(self, epochs: int = 1) -> None:
        """End a cycle early: in `epochs` epochs the learning rate falls to where the cycle would have ended.

        Called by a callback or another thread it changes the fit under way, from its next epoch on; one that ends as
        early, or falls already, stays as it is. After a fit that was stopped it is a fit of its own. Raises
        SettingError where there was no fit, or it is finished.
        """
        epochs = whole(epochs, "epochs", least=1)
        if self._last is None:
            raise SettingError("anneal_now: there was no fit yet; expected one that runs, or was stopped")
        job, fit = self._last
        batches = len(self.data.train_dl)
        if self._running:
            with TURNING:  # the next epoch does not begin with the old rates meanwhile
                begun = fit.epoch + 1
                epochs = min(epochs, fit.epochs - begun)
                if epochs < 1 or isinstance(fit.schedule, Annealed):
                    return  # it ends anyway, or falls already
                start = begun * batches
                turned = annealed(fit.schedule, start, epochs * batches, fit.epochs * batches)
                vars(fit).update(schedule=turned, epochs=begun + epochs)  # both at once, for a checkpoint
                fit.record.settings = {**fit.record.settings, "epochs": fit.epochs, "annealed from step": start}
            return
        if not fit.record.stopped:
            raise SettingError("anneal_now: the last fit is finished; lengthen it with extend")
        lrs, mom = fit.schedule(fit.iteration)
        there = annealed(fit.schedule, fit.iteration, epochs * batches, fit.epochs * batches)
        down = replace(there, before=Constant(lrs, mom), start=0)
        recorder = self._new_recorder(epochs, job.wd, {"schedule": "annealing", "lr": lrs[-1]})
        self._fit(Job(epochs, down, job.wd, job.callbacks, recorder))

    def extend(self, epochs: int) -> None:
        """Lengthen the last fit by `epochs`, as if its cycle had been that much longer from here on.

        The rate rises to that of the longer cycle within a twentieth of the new steps, and falls with it. The record
        and, where the fit was kept, its checkpoints go on. Raises SettingError where the last fit is not finished.
        """
        epochs = whole(epochs, "epochs", least=1)
        if self._last is None:
            raise SettingError("extend: there was no fit yet; expected one that is finished")
        job, fit = self._last
        done = len(fit.record.epochs)
        if fit.record.stopped or done != fit.epochs:
            raise SettingError("extend: the last fit was stopped; go on with it (resume), or end it with anneal_now")
        if fit.record.metric_names != [metric_name(metric) for metric in self.metrics]:
            raise SettingError(f"extend: the fit's metrics were {fit.record.metric_names}; expected the same")
        batches = len(self.data.train_dl)
        job.epochs, job.schedule = fit.epochs + epochs, extended(fit.schedule, fit.iteration, epochs * batches)
        job.start = Position(done, 0, fit.iteration)
        job.first_epoch = self.epochs_trained - done
        fit.record.settings |= {"epochs": job.epochs, "extended from step": fit.iteration}
        self._fit(job)
