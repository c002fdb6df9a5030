"""All that a module holds is restored, into the same objects."""

from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from conftest import Net
from onecycle import DataBunch, Learner
from onecycle.train.snapshot import restoring


class Pair(NamedTuple):
    names: list[str]
    count: int


class Remembers(Net):
    """A model that keeps whatever it saw, in everything that things can be kept in."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []
        self.by_name: dict[str, Any] = {"rows": 0, "nested": {"sums": [0.0]}, "mean": torch.zeros(20)}
        self.labels, self.last = {0}, deque([0], maxlen=3)
        self.unshuffled, self.counts, self.kinds = OrderedDict(a=1), Counter(a=1), defaultdict(list)
        self.pair, self.shape, self.means = Pair(["a"], 0), (0,), [torch.zeros(20)]
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "first"):
            self.first = x[0]
        self.seen.append(x[0, 0].item())
        self.by_name["rows"] += len(x)
        self.by_name["nested"]["sums"].append(x.sum().item())
        self.by_name["mean"] += x.detach().mean(0)
        self.by_name[f"batch {len(self.seen)}"] = x
        self.means[0].data.add_(1)  # which torch's own count of changes does not see
        self.labels.add(len(self.seen))
        self.last.append(len(self.seen))
        self.unshuffled["b"] = 2
        self.counts["b"] += 1
        self.kinds["b"].append(1)
        self.pair.names.append("b")
        self.pair, self.shape, self.means = Pair(self.pair.names, 1), tuple(x.shape), [*self.means, x]
        self.calls += 1
        return super().forward(x)


def held(model: nn.Module) -> dict[str, Any]:
    own = {name: value for name, value in vars(model).items() if name not in vars(nn.Module())}
    return {"own": own, "buffers": dict(model.named_buffers()), "training": model.training}


def test_finding_leaves_no_trace_in_what_a_module_keeps(toy: DataBunch):
    model, fresh = Remembers(), Remembers()
    own = {name: id(value) for name, value in held(model)["own"].items()}
    Learner(toy, model, silent=True).lr_find(num_it=20)
    assert str(held(model)) == str(held(fresh))
    assert {name: id(value) for name, value in held(model)["own"].items()} == own


class CountingLoss:
    """A loss with a state that is not a module."""

    def __init__(self) -> None:
        self.calls = 0
        self.values: list[float] = []

    def __call__(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(out, y)
        self.calls += 1
        self.values.append(loss.item())
        return loss


def test_finding_leaves_no_trace_in_a_loss_that_is_not_a_module(toy: DataBunch):
    loss_func = CountingLoss()
    values = loss_func.values
    Learner(toy, Net(), loss_func=loss_func, silent=True, engine="eager").lr_find(num_it=20)
    assert (loss_func.calls, loss_func.values) == (0, [])
    assert loss_func.values is values


def test_what_cannot_be_written_to_is_left_alone():
    model = nn.Linear(2, 2)
    with torch.inference_mode():
        made = torch.ones(2)
    model.held = [made, torch.ones(1).expand(3), torch.eye(2).to_sparse(), torch.zeros(())]
    model.held.append(model.held)  # a list may hold itself
    with restoring(model):
        model.held[3] += 1
        model.held.pop(0)
    assert model.held[0] is made
    assert model.held[3] == 0
    assert model.held[4] is model.held


def test_it_is_restored_after_an_error():
    model = Remembers()
    with pytest.raises(ZeroDivisionError), restoring(model):
        model(torch.ones(2, 20))
        raise ZeroDivisionError
    assert model.seen == []
    assert not hasattr(model, "first")


def test_memory_dtype_flags_and_attributes_of_tensors_are_restored():
    model = nn.Linear(4, 4)
    model.views = model.weight.chunk(2)
    model.weight.steps = [0]
    weight, memory = model.weight, model.weight.data_ptr()
    before = weight.tolist()
    for _ in range(2):
        with restoring(model):
            model.half()
            model.weight.requires_grad = False
            model.weight.steps.append(1)
            model.bias.data = torch.ones(4)
    assert model.weight is weight
    assert (weight.dtype, weight.data_ptr(), weight.requires_grad, weight.steps) == (torch.float32, memory, True, [0])
    assert weight.tolist() == before
    assert (model.bias != 1).all()


def test_a_buffer_that_a_step_made_part_of_its_graph_is_out_of_it_again():
    model = nn.Linear(4, 2)
    model.mean = torch.zeros(2)
    with restoring(model):
        model.mean.mul_(0.9).add_(model(torch.ones(3, 4)).mean(0))
        assert model.mean.grad_fn is not None
    assert model.mean.is_leaf
    assert model.mean.tolist() == [0, 0]


def test_the_mode_of_autograd_is_that_of_the_caller():
    with torch.no_grad(), restoring(nn.Linear(2, 2)):
        torch.set_grad_enabled(True)
    assert torch.is_grad_enabled()
    with pytest.raises(ZeroDivisionError), restoring(nn.Linear(2, 2)):
        raise ZeroDivisionError
    assert torch.is_grad_enabled()
