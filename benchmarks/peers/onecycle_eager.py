"""onecycle, with its reference engine."""

from workloads import Job

import onecycle
from peers.torch_parts import network


class Peer:
    """Learner.fit_one_cycle with accuracy."""

    name = "onecycle, eager"
    package = "onecycle"
    note = ""
    engine = "eager"

    def __init__(self, job: Job) -> None:
        valid = (job.xv, job.yv) if len(job.xv) else None
        data = onecycle.DataBunch.create((job.x, job.y), valid, bs=job.bs, seed=0)
        self.learn = onecycle.Learner(
            data, network(job.workload), metrics=onecycle.accuracy, silent=True, engine=self.engine
        )
        self.lr = job.workload.lr

    def epoch(self, epochs: int = 1) -> float | None:
        """One cycle of one epoch, or of several."""
        self.learn.fit_one_cycle(epochs, self.lr)
        return self.learn.recorder.metrics[-1][0] if self.learn.data.valid_dl is not None else None
