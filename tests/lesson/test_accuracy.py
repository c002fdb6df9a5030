"""The lesson's accuracy, over ten seeds so that luck does not decide."""

import numpy as np
import pytest
import torch

from conftest import Net
from onecycle import DataBunch, Learner, accuracy, mnist


@pytest.mark.slow
def test_one_epoch_reads_96_of_100_digits():
    digits = mnist(seed=0)
    found = []
    for seed in range(10):
        torch.manual_seed(seed)
        data = DataBunch.create(digits.train_ds, digits.valid_ds, bs=64, seed=seed)
        learn = Learner(data, Net(784, 50, 10), metrics=accuracy, silent=True)
        learn.fit_one_cycle(1, 1e-2)
        found.append(learn.recorder.metrics[-1][0])
    assert np.mean(found) >= 0.960, found
