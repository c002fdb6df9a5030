"""Loaders that give fewer batches than they say."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import TensorDataset

from conftest import Net, seeded, toy_arrays
from onecycle import EMA, Callback, DataBunch, GradientAccumulation, Learner
from onecycle.data.loaders import InMemoryLoader


class Exact(InMemoryLoader):
    """Five batches."""

    says = 5

    def __len__(self) -> int:
        return self.says

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same five in every epoch."""
        for rows in torch.arange(80).split(16):
            yield self.tensors[0][rows], self.tensors[1][rows]


class Short(Exact):
    """The same, and it says twelve."""

    says = 12


@pytest.mark.parametrize("make", [lambda: GradientAccumulation(3), lambda: EMA(0.9)])
def test_callbacks_know_the_last_batch_also_of_a_loader_that_gives_fewer_than_it_says(make: Callable[[], Callback]):
    learners = []
    for kind in (Short, Exact):
        dataset, cpu = TensorDataset(*toy_arrays()), torch.device("cpu")
        loaders = kind(dataset, 16, cpu, 0), InMemoryLoader(dataset, 50, cpu, 0)
        data = DataBunch(*loaders, device="cpu", seed=0)
        learn = Learner(data, seeded(Net()), opt_func=SGD, callbacks=make(), silent=True)
        learn.fit(3, 0.1)
        learners.append(learn)
    assert learners[0].recorder.val_losses == learners[1].recorder.val_losses
    assert torch.equal(learners[0].model.lin1.weight, learners[1].model.lin1.weight)
