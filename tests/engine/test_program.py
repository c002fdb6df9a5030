"""Programs as Python let go of what they no longer use."""

import weakref

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
