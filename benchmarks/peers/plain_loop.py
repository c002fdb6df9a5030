"""PyTorch as one writes it by hand: DataLoader, AdamW, OneCycleLR, a validation loop."""

import torch
from torch import nn
from torch.utils.data import DataLoader
from workloads import Job

from peers.schedule import BETAS, WD
from peers.torch_parts import DEVICE, datasets, network


class Peer:
    """The loop of the tutorials."""

    name = "plain PyTorch loop"
    package = "torch"
    note = ""

    def __init__(self, job: Job) -> None:
        train, valid = datasets(job)
        self.train = DataLoader(train, job.bs, shuffle=True, drop_last=True)
        self.valid = DataLoader(valid, job.bs)
        self.model = network(job.workload).to(DEVICE)
        self.loss_func = nn.CrossEntropyLoss()
        self.lr = job.workload.lr
        self.opt = torch.optim.AdamW(self.model.parameters(), self.lr, betas=BETAS, weight_decay=WD)

    def epoch(self) -> float | None:
        """Train, then validate."""
        schedule = torch.optim.lr_scheduler.OneCycleLR(self.opt, self.lr, total_steps=len(self.train))
        self.model.train()
        for x, y in self.train:
            loss = self.loss_func(self.model(x.to(DEVICE)), y.to(DEVICE))
            loss.backward()
            self.opt.step()
            schedule.step()
            self.opt.zero_grad()
        self.model.eval()
        total, right, rows = 0.0, 0, 0
        with torch.no_grad():
            for x, y in self.valid:
                out, y = self.model(x.to(DEVICE)), y.to(DEVICE)
                total += self.loss_func(out, y).item() * len(y)
                right += int((out.argmax(1) == y).sum())
                rows += len(y)
        return right / rows
