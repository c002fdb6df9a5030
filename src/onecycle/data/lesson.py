"""The lesson's data as a DataBunch."""

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.data.bunch import DataBunch
from onecycle.data.datasets import mnist_arrays, mnist_floats


def mnist(bs: int = 64, seed: int | None = None, device: str | torch.device | None = None) -> DataBunch:
    """MNIST as in the lesson: 50,000 / 10,000 / 10,000 rows of 784 floats (pixel / 256), labels 0 to 9.

    Read from the copy in the package; no network.
    """
    splits = [(torch.from_numpy(mnist_floats(x)), torch.from_numpy(y.astype(np.int64))) for x, y in mnist_arrays()]
    train, valid, test = (TensorDataset(x, y) for x, y in splits)
    data = DataBunch.create(train, valid, test, bs=bs, seed=seed, device=device)
    data.pixel_scale = 256.0
    return data
