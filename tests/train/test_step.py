"""What training does to a batch, beside plain torch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import seeded
from onecycle import DataBunch, Learner

ROWS, CLASSES = 512, 10


class Sure(nn.Module):
    """A classifier so sure of itself that softmax gives denormal probabilities; it shows what comes back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(8, 16), nn.Linear(16, CLASSES)
        self.last = torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.lin2(self.lin1(x).relu()) * 300
        if self.last.requires_grad:
            self.last.retain_grad()
        return self.last


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 8, generator=generator)
    return x, seeded(Sure())(x).argmax(1)  # it is right, so that most gradients are tiny


def denormal(tensor: torch.Tensor | None) -> int:
    assert tensor is not None
    return int(((tensor != 0) & (tensor.abs() < torch.finfo(tensor.dtype).tiny)).sum())


def plain_step(model: Sure, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    return loss.detach()


def test_no_denormal_number_reaches_the_products_of_the_way_back():
    x, y = arrays()
    plain, ours = seeded(Sure()), seeded(Sure())
    loss = plain_step(plain, x, y)
    assert denormal(plain.last.grad) > ROWS / 20  # what it is there against
    data = DataBunch.create((x.numpy(), y.numpy()), bs=ROWS)
    learn = Learner(data, ours, engine="eager", opt_func=torch.optim.SGD, silent=True, wd=0.0)
    learn.fit(1, 0.1)
    assert denormal(ours.last.grad) == 0
    assert learn.recorder.record.batch_losses == pytest.approx([float(loss)])
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-6, atol=1e-7)


def test_both_engines_do_so():
    x, y = arrays()
    data = DataBunch.create((x.repeat(4, 1).numpy(), y.repeat(4).numpy()), bs=ROWS, seed=1)
    found = []
    for engine in ("eager", "fast"):
        model = seeded(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES)))
        learn = Learner(data, model, engine=engine, silent=True)
        learn.fit_one_cycle(3, 1.0)
        found.append(learn)
    eager, fast = found
    assert fast.engine.captured is not None
    assert "hardshrink" in str(fast.engine.captured.trace.ops)
    assert fast.recorder.record.batch_losses == eager.recorder.record.batch_losses
    assert all(map(torch.equal, fast.model.parameters(), eager.model.parameters()))
