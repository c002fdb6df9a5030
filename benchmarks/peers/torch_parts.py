"""What the peers built on PyTorch share: the network and the data as tensors."""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from workloads import Job, Workload

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def network(workload: Workload) -> nn.Module:
    """The workload's network: a perceptron, or convolutions and a linear layer."""
    layers: list[nn.Module] = []
    if workload.channels:
        layers.append(nn.Unflatten(1, (1, 28, 28)))
        for inputs, outputs in zip((1, *workload.channels), workload.channels, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(workload.channels[-1] * 7 * 7, workload.sizes[-1])]
        return nn.Sequential(*layers)
    for inputs, outputs in zip(workload.sizes, workload.sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def tensors(job: Job) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, xv and yv as tensors that share the arrays' memory."""
    x, y, xv, yv = (torch.from_numpy(array) for array in (job.x, job.y, job.xv, job.yv))
    return x, y, xv, yv


def datasets(job: Job) -> tuple[TensorDataset, TensorDataset]:
    """The training and the validation set."""
    x, y, xv, yv = tensors(job)
    return TensorDataset(x, y), TensorDataset(xv, yv)
