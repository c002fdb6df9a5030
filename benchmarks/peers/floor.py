"""The floor: the gather and the matrix products of an epoch, training and validation, and nothing else."""

import itertools

import torch
from workloads import Job

from peers.torch_parts import DEVICE, tensors


class Peer:
    """Forward, weight gradients and input gradients as bare products (convolutions for a conv net)."""

    name = "floor: gather and products alone"
    package = "torch"
    note = "trains nothing"

    def __init__(self, job: Job) -> None:
        torch.empty(33_000_000, dtype=torch.uint8)  # as onecycle does: without page faults (core/device.py)
        self.x, self.y, self.xv, _ = (t.to(DEVICE) for t in tensors(job))
        self.bs, self.steps = job.bs, job.steps
        channels, sizes = job.workload.channels, job.workload.sizes
        self.kernels = [torch.rand(o, i, 3, 3, device=DEVICE) for i, o in zip((1, *channels), channels, strict=False)]
        sizes = (channels[-1] * 7 * 7, sizes[-1]) if channels else sizes
        self.weights = [torch.rand(o, i, device=DEVICE) for i, o in itertools.pairwise(sizes)]

    @torch.no_grad()
    def epoch(self) -> float | None:
        """One epoch of products; no accuracy."""
        order = torch.randperm(len(self.x), device=DEVICE)
        for rows in order[: self.steps * self.bs].split(self.bs):
            self.y.index_select(0, rows)
            self.backward(self.forward(self.x.index_select(0, rows)))
        for x in self.xv.split(self.bs):
            self.forward(x)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()  # the epoch ends when the device is done

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What goes into each layer, and what comes out of the last."""
        flow = [x.view(-1, 1, 28, 28) if self.kernels else x]
        for kernel in self.kernels:
            flow.append(torch.conv2d(flow[-1], kernel, stride=2, padding=1))
        for weight in self.weights:
            flow.append(flow[-1].flatten(1) @ weight.t())
        return flow

    def backward(self, flow: list[torch.Tensor]) -> None:
        """The products of the way back; the first layer's input needs no gradient."""
        grad = flow.pop()
        for weight in reversed(self.weights):
            x = flow.pop()
            _ = grad.t() @ x.flatten(1)
            if flow:
                grad = (grad @ weight).view_as(x)
        for kernel in reversed(self.kernels):
            x = flow.pop()
            grad, _, _ = torch.ops.aten.convolution_backward(
                grad, x, kernel, None, (2, 2), (1, 1), (1, 1), False, (0, 0), 1, (bool(flow), True, False)
            )
