"""The tight loop with its model and loss compiled by torch.compile."""

import torch
from torch.nn import functional as F
from workloads import Job

from peers import tight_loop


class Peer(tight_loop.Peer):
    """The same, compiled, with CUDA graphs where there is a GPU."""

    name = "tight PyTorch loop, torch.compile"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        model = self.model

        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.cross_entropy(model(x), y)

        self.loss_of = torch.compile(loss_of, mode="reduce-overhead")
