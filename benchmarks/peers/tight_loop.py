"""PyTorch tuned by hand: the data on the device, index_select batches, fused AdamW, no waiting inside the epoch."""

import torch
from torch.nn import functional as F
from workloads import Job

from peers.schedule import BETAS, WD, one_cycle
from peers.torch_parts import DEVICE, network, tensors


class Peer:
    """What an expert writes for this one job."""

    name = "tight PyTorch loop"
    package = "torch"
    note = ""

    def __init__(self, job: Job) -> None:
        self.x, self.y, self.xv, self.yv = (t.to(DEVICE) for t in tensors(job))
        self.bs = job.bs
        self.model = network(job.workload).to(DEVICE)
        self.opt = torch.optim.AdamW(self.model.parameters(), betas=BETAS, weight_decay=WD, fused=True)
        self.rates = one_cycle(job.steps, job.workload.lr)
        self.losses = torch.empty(job.steps, device=DEVICE)

    def loss_of(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch."""
        return F.cross_entropy(self.model(x), y)

    def train(self) -> None:
        """An epoch of steps."""
        model, opt, x, y = self.model, self.opt, self.x, self.y
        group = opt.param_groups[0]
        model.train()
        order = torch.randperm(len(x), device=DEVICE)
        for i, rate in enumerate(self.rates):
            rows = order[i * self.bs : (i + 1) * self.bs]
            group["lr"] = rate
            loss = self.loss_of(x.index_select(0, rows), y.index_select(0, rows))
            loss.backward()
            opt.step()
            opt.zero_grad()
            self.losses[i] = loss.detach()

    def epoch(self) -> float | None:
        """Train, then validate."""
        self.train()
        model = self.model
        model.eval()
        total = torch.zeros((), device=DEVICE)
        right = torch.zeros((), dtype=torch.int64, device=DEVICE)
        with torch.no_grad():
            for x, y in zip(self.xv.split(self.bs), self.yv.split(self.bs), strict=True):
                out = model(x)
                total += F.cross_entropy(out, y, reduction="sum")
                right += (out.argmax(1) == y).sum()
        count = right.item()  # waits for the device
        return count / len(self.yv) if len(self.yv) else None
