"""What all tests share: no screen, one thread, files in a folder of the test's own."""

import os

os.environ["MPLBACKEND"] = "Agg"
os.environ["CI"] = "1"  # no live bar, wherever the tests run
os.environ.pop("ONECYCLE_DEVICE", None)

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from onecycle import DataBunch

torch.set_num_threads(1)  # tests run side by side


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's folders are the test's own."""
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def no_figures_left() -> Generator[None]:
    """Close the figures a test drew."""
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


class Net(nn.Module):
    """The lesson's network, of any size."""

    def __init__(self, inputs: int = 20, hidden: int = 8, outputs: int = 4) -> None:
        super().__init__()
        self.lin1 = nn.Linear(inputs, hidden)
        self.lin2 = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin2(torch.relu(self.lin1(x)))


class WithNorms(nn.Module):
    """A convolution, norms, a parameter of its own, a Linear layer without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 3, 3)
        self.bn = nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.ones(3, 1))
        self.head = nn.Sequential(nn.LayerNorm(18), nn.Linear(18, 4, bias=False), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.bn(self.conv(x[:, None])) * self.scale).flatten(1))


class Everything(nn.Module):
    """A convolution, BatchNorm, dropout, a parameter of its own, a tied one and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.ones(3, 1))
        self.lin1, self.lin2 = nn.Linear(54, 54), nn.Linear(54, 54)
        self.lin2.weight = self.lin1.weight
        self.head, self.unused = nn.Linear(54, 4), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (self.bn(self.conv(x[:, None])) * self.scale).flatten(1)
        return self.head(F.dropout(self.lin2(F.gelu(self.lin1(x))), 0.2, self.training))


def seeded(model: nn.Module, seed: int = 7) -> nn.Module:
    """`model` with weights that are a function of `seed` alone."""
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            bound = 1 / parameter.shape[-1] ** 0.5
            parameter.copy_(torch.from_numpy(random.uniform(-bound, bound, parameter.shape)))
    return model


def toy_arrays(
    rows: int = 200, columns: int = 20, classes: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of `classes` noisy prototypes, and their labels."""
    random = np.random.RandomState(seed)
    y = np.arange(rows) % classes
    prototypes = np.random.RandomState(99).normal(size=(classes, columns))
    x = prototypes[y] + 0.5 * random.normal(size=(rows, columns))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


@pytest.fixture
def toy() -> DataBunch:
    """200 training and 50 validation rows of 20 numbers in 4 classes, batches of 16."""
    return DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
