"""One step of the tight loop as a CUDA graph, made by hand and replayed: what an expert writes for a GPU."""

import torch
from torch.nn import functional as F
from workloads import Job

from peers import Unsupported, tight_loop
from peers.schedule import BETAS, WD
from peers.torch_parts import DEVICE


class Peer(tight_loop.Peer):
    """Gather, forward, backward and AdamW in one graph; a counter on the device says which batch and rate are next."""

    name = "hand-made CUDA graph"

    def __init__(self, job: Job) -> None:
        if DEVICE.type != "cuda":
            raise Unsupported("needs a GPU")
        super().__init__(job)
        self.steps = job.steps
        self.order = torch.randperm(len(self.x), device=DEVICE)[: self.steps * self.bs].view(self.steps, self.bs)
        self.table = torch.tensor(self.rates, dtype=torch.float32, device=DEVICE)
        self.number = torch.zeros(1, dtype=torch.int64, device=DEVICE)
        self.lr = torch.zeros((), device=DEVICE)
        self.opt = torch.optim.AdamW(
            self.model.parameters(), self.lr, betas=BETAS, weight_decay=WD, fused=True, capturable=True
        )
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # warms up, on a side stream as CUDA asks
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.opt.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()

    def step(self) -> None:
        """Train on batch `number`, and count."""
        self.opt.zero_grad(set_to_none=True)
        rows = self.order.index_select(0, self.number).view(-1)
        self.lr.copy_(self.table.index_select(0, self.number).view(()))
        loss = F.cross_entropy(self.model(self.x.index_select(0, rows)), self.y.index_select(0, rows))
        loss.backward()
        self.opt.step()
        self.losses.index_copy_(0, self.number, loss.detach().view(1))
        self.number.add_(1).remainder_(self.steps)

    def train(self) -> None:
        """An epoch of replays."""
        self.model.train()
        self.number.zero_()
        self.order.copy_(torch.randperm(len(self.x), device=DEVICE)[: self.steps * self.bs].view_as(self.order))
        for _ in range(self.steps):
            self.graph.replay()
