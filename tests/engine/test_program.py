"""Programs as Python: they take TorchScript's place, and let go of what they no longer use."""

import json
import os
import subprocess
import sys
import weakref

import pytest
import torch

from onecycle.engine.program import _with_dels, as_python

SOURCE = """def run(data: List[Tensor], n: int) -> Tensor:
    s0 = data[0]
    v0 = torch.ops.aten.t(s0)
    losses: List[Tensor] = []
    for i in range(n):
        x0 = data[1].narrow(0, i, 1)
        s0 = torch.ops.aten.add_(s0, 1)
        v1, _ = torch.ops.aten.max(x0, 1)
        v2 = torch.ops.aten.mul(v1, v0)
        g0 = v2
        losses.append(g0)
    return torch.stack(losses)
"""


def test_each_name_is_let_go_after_its_last_line():
    assert [text.strip() for text in _with_dels(SOURCE).splitlines() if "del" in text or "= torch" in text] == [
        "v0 = torch.ops.aten.t(s0)",
        "s0 = torch.ops.aten.add_(s0, 1)",
        "v1, _ = torch.ops.aten.max(x0, 1)",
        "del x0",
        "del _",
        "v2 = torch.ops.aten.mul(v1, v0)",
        "del v1",
        "del v2",
        "del g0",
    ]


def test_the_program_still_runs():
    data = [torch.ones(1, 1), torch.tensor([[1.0, 2.0], [3.0, 4.0]])]
    assert as_python(SOURCE, "run")(data, 2).flatten().tolist() == [2.0 * 2, 4.0 * 3]
    assert data[0].item() == 3


def test_a_step_holds_no_tensor_longer_than_it_has_to():
    alive: list[int] = []
    refs: list[weakref.ref[torch.Tensor]] = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            found = super().__torch_function__(func, types, args, kwargs or {})
            refs.append(weakref.ref(found))
            alive.append(sum(ref() is not None for ref in refs))
            return found

    source = "def run(x: Tensor) -> Tensor:\n" + "    v0 = torch.neg(x)\n"
    source += "".join(f"    v{i + 1} = torch.neg(v{i})\n" for i in range(20)) + "    return v20\n"
    as_python(source, "run")(torch.ones(2).as_subclass(Watched))
    assert len(alive) == 21
    assert max(alive) == 2


def test_python_calls_the_overload_that_a_comment_names(monkeypatch: pytest.MonkeyPatch):
    def resolves(*_: object, **__: object) -> None:
        raise AssertionError("the overload was looked for")

    source = "def run(x: Tensor) -> Tensor:\n    v0 = torch.ops.aten.mul(x, 2)  # Tensor\n    return v0\n"
    run = as_python(source, "run")
    monkeypatch.setattr(type(torch.ops.aten.mul), "__call__", resolves)
    assert run(torch.ones(1)).item() == 2


FITS = """
import hashlib, json, warnings
from functools import partial
import torch
import onecycle

warnings.simplefilter("error")
torch.set_num_threads(1)
found = []
g = torch.Generator().manual_seed(0)
arrays = torch.randn(320, 6, generator=g), torch.randint(0, 3, (320,), generator=g)
for opt_func in (torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9, nesterov=True), torch.optim.SGD):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.GELU(), torch.nn.Linear(8, 3))
    data = onecycle.DataBunch.create(arrays, arrays, bs=8, seed=1)
    learn = onecycle.Learner(data, model, opt_func=opt_func, wd=0.1, metrics=onecycle.accuracy, engine="fast", silent=True)
    learn.fit_one_cycle(2, 1e-2)
    assert learn.engine.captured is not None and learn.engine.fallback_reason is None
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    found.append([hashlib.sha256(weights).hexdigest(), learn.recorder.val_losses])
print(json.dumps(found))
"""


def fits(simulated: str | None) -> list[object]:
    environment = os.environ | ({"ONECYCLE_TORCHSCRIPT": simulated} if simulated else {})
    command = [sys.executable, "-c", FITS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_without_torchscript_python_takes_over_and_no_bit_changes():
    with_torchscript = fits(None)
    for simulated in ("does not compile", "does not run"):
        assert fits(simulated) == with_torchscript
