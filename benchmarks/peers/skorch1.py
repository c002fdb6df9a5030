"""skorch, scikit-learn's interface to PyTorch."""

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import TensorDataset
from workloads import Job

from peers.schedule import BETAS, WD
from peers.torch_parts import DEVICE, network, tensors


class Peer:
    """NeuralNetClassifier.partial_fit."""

    name = "skorch"
    package = "skorch"
    note = ""

    def __init__(self, job: Job) -> None:
        x, y, xv, yv = tensors(job)
        self.x, self.y = x, y
        self.net = NeuralNetClassifier(
            network(job.workload),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            optimizer__betas=BETAS,
            optimizer__weight_decay=WD,
            lr=job.workload.lr,
            max_epochs=1,
            batch_size=job.bs,
            iterator_train__shuffle=True,
            iterator_train__drop_last=True,
            train_split=predefined_split(TensorDataset(xv, yv)),
            callbacks=[
                LRScheduler(
                    torch.optim.lr_scheduler.OneCycleLR,
                    max_lr=job.workload.lr,
                    total_steps=job.steps + 1,
                    step_every="batch",
                    last_epoch=-1,  # each partial_fit is a cycle from its start
                )
            ],
            callbacks__print_log=None,
            verbose=0,
            classes=list(range(job.workload.sizes[-1])),
            device=str(DEVICE),
        )

    def epoch(self) -> float | None:
        """One cycle of one epoch."""
        self.net.partial_fit(self.x, self.y)
        return float(self.net.history[-1, "valid_acc"])
