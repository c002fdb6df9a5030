"""fastai 2 over its own loaders."""

from fastai.basics import DataLoader, DataLoaders, Learner, accuracy
from fastai.callback.schedule import fit_one_cycle  # noqa: F401  # patches the method in
from torch import nn
from workloads import Job

from peers.torch_parts import DEVICE, datasets, network


class Peer:
    """Learner.fit_one_cycle with accuracy."""

    name = "fastai 2"
    package = "fastai"
    note = ""

    def __init__(self, job: Job) -> None:
        train, valid = datasets(job)
        loaders = DataLoaders(
            DataLoader(train, bs=job.bs, shuffle=True, drop_last=True, num_workers=0),
            DataLoader(valid, bs=job.bs, num_workers=0),
            device=DEVICE,
        )
        self.learn = Learner(loaders, network(job.workload), loss_func=nn.CrossEntropyLoss(), metrics=accuracy)
        self.lr = job.workload.lr

    def epoch(self) -> float | None:
        """One cycle of one epoch."""
        with self.learn.no_bar(), self.learn.no_logging():
            self.learn.fit_one_cycle(1, self.lr)
        return float(self.learn.recorder.values[-1][2])
