"""A trace writes down what runs below autograd, and nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from onecycle.engine.program import compiled, op_source, step_source
from onecycle.engine.trace import CannotCaptureError, Trace, Tracer


def traced(function: Any, *inputs: torch.Tensor) -> Trace:
    with (tracer := Tracer(inputs)):
        found = function(*inputs)
    return tracer.trace(found if isinstance(found, list) else [found])


def names(trace: Trace) -> list[str]:
    return [str(op.func) for op in trace.ops]


def test_the_lessons_step_is_this_list():
    model, x, y = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), torch.rand(5, 6), torch.arange(5) % 3

    def step(x: torch.Tensor, y: torch.Tensor) -> list[Any]:
        loss = nn.functional.cross_entropy(model(x), y)
        tracer.in_backward = True
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    with (tracer := Tracer([x, y])):
        outputs = step(x, y)
    trace = tracer.trace(outputs)
    assert [name.removeprefix("aten.").partition(".")[0] for name in names(trace)] == [
        *("t", "addmm", "relu", "t", "addmm", "_log_softmax", "nll_loss_forward"),
        *("nll_loss_backward", "_log_softmax_backward_data", "mm", "t", "mm", "sum"),
        *("threshold_backward", "t", "mm", "sum"),
    ]
    assert len(trace.state) == 5  # four parameters, and the one that the backward pass begins with
    assert all(any(p is s for s in trace.state) for p in model.parameters())


def test_what_nobody_uses_is_dropped_but_not_what_writes_or_draws():
    memory = torch.zeros(3)

    def function(x: torch.Tensor) -> torch.Tensor:
        x.exp()
        memory.add_(1)
        torch.rand(2)
        return x.sin()

    assert names(traced(function, torch.rand(3))) == ["aten.add_.Tensor", "aten.rand.default", "aten.sin.default"]


def test_sums_that_are_no_bias_gradients_keep_their_shape():
    x = torch.rand(2, 3, 4)
    for function in (lambda x: x.sum(0, keepdim=True).view(12), lambda x: x[0].sum(1, keepdim=True).view(3)):
        assert torch.equal(compiled(step_source(traced(function, x)), "step")([x], [])[0], function(x))


@pytest.mark.parametrize("look", [lambda x: x.sum().item(), lambda x: bool((x > 0).any()), lambda x: torch.equal(x, x)])
def test_looking_at_a_value_is_refused(look: Any):
    with pytest.raises(CannotCaptureError, match="depends on the values in a batch"):
        traced(lambda x: [look(x), x][1], torch.rand(3))


def test_memory_that_is_handed_on_unseen_is_refused():
    def function(x: torch.Tensor) -> torch.Tensor:
        made = x.exp()
        return torch.from_numpy(made.numpy()).sin()  # the same memory, and nobody is told

    with pytest.raises(CannotCaptureError, match="passes a tensor on in a way that cannot be followed"):
        traced(function, torch.rand(3))


def test_tensors_that_were_there_before_are_kept_by_reference():
    scale = torch.ones(3)
    trace = traced(lambda x: x * scale, torch.rand(3))
    step = compiled(step_source(trace), "step")
    x = torch.rand(3)
    assert torch.equal(step([x], trace.state)[0], x)
    scale.fill_(2.0)
    assert torch.equal(step([x], trace.state)[0], 2 * x)


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack(x.split([2, 3], 1)[0].unbind(1)),
        lambda x: x.sum(()),
        lambda x: x.max(1).values + x.topk(2).values[:, 1],
        lambda x: x.clamp(min=float("-inf"), max=float("inf")).to(torch.float64),
        lambda x: torch.where(x > 0.5, x, 2.0) + torch.full((1,), float("inf")).reciprocal(),
        lambda x: nn.functional.gelu(x, approximate="tanh").sum([0, 1], keepdim=True),
        lambda x: nn.functional.pad(x, (1, 1)).contiguous(memory_format=torch.contiguous_format),
        lambda x: nn.functional.max_pool1d(x[None], 2)[0] if len(x) else x,
        lambda x: x[:, [0, 2]] + torch.zeros((), dtype=torch.float32, device="cpu"),
        lambda x: torch.einsum("ij,kj->ik", x, x).diagonal(),
        lambda x: nn.functional.scaled_dot_product_attention(x[None, None], x[None, None], x[None, None]),
    ],
)
def test_any_operation_gives_the_same_in_torchscript_and_python(
    function: Any, script: bool, monkeypatch: pytest.MonkeyPatch
):
    trace = traced(function, torch.rand(4, 5))
    if not script:
        monkeypatch.delattr(torch.jit, "CompilationUnit")
    x = torch.rand(4, 5)
    assert torch.equal(compiled(step_source(trace), "step")([x], trace.state)[0], function(x))


def test_the_text_holds_calls_and_numbers_only():
    trace = traced(lambda x: nn.functional.gelu(x * 0.5, approximate="tanh"), torch.rand(3))
    assert [op_source(op) for op in trace.ops] == [
        "v1 = torch.ops.aten.mul(x0, 0.5)  # Tensor",
        "v2 = torch.ops.aten.gelu(v1, approximate='tanh')  # default",
    ]


@pytest.mark.slow
def test_capturing_imports_no_compiler(tmp_path: Path):
    code = (
        "import sys, torch, onecycle\n"
        "data = onecycle.DataBunch.create((torch.rand(640, 4), torch.arange(640) % 2), bs=4, seed=0)\n"
        "learn = onecycle.Learner(data, onecycle.MLP(4, 2), engine='fast', silent=True)\n"
        "learn.fit_one_cycle(2, 1e-3); learn.lr_find(); learn.save('here'); learn.load('here')\n"
        "assert learn.engine.captured is not None\n"
        "print([m for m in ('torch._dynamo', 'sympy', 'torch._inductor') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.splitlines()[-1] == "[]"
