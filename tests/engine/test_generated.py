"""Generated models, losses and callbacks: the fast engine does as eager does, or says why it stayed eager.

`make torture` runs 10,000. `python tests/engine/torture.py --case N` runs one case again.
"""

from pathlib import Path

import pytest

from engine.differences import GOOD, SAME_CAPTURED, SAME_ERROR, differences, judged, judged_text, run
from engine.generated import is_standard, source

AT_ONCE = 12  # the others are slow


@pytest.mark.parametrize(
    "number", [*range(AT_ONCE), *(pytest.param(number, marks=pytest.mark.slow) for number in range(AT_ONCE, 320))]
)
def test_a_generated_case_is_as_eager_leaves_it(number: int, tmp_path: Path):
    result = judged(number, tmp_path)
    assert result.verdict in GOOD, f"{result.verdict}: {result.detail}\n{source(number)}"
    if is_standard(number) and result.verdict != SAME_ERROR:
        assert result.verdict == SAME_CAPTURED, f"not captured: {result.reason}\n{source(number)}"


def test_a_case_is_the_same_each_time():
    assert source(7) == source(7)
    assert source(7) != source(8)


TEXT = """
import onecycle, torch
from torch import nn
SPLIT, EPOCHS, LR, LOSS, MODEL, TASK = False, (1, 1), 0.01, None, None, "classes"
CALLS = []

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 3)
    def forward(self, x):
        return self.lin(x)

def make_model():
    return Model()

def make_data():
    x, y = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    return onecycle.DataBunch.create((x, y), (x, y), bs=8, seed=3)

def make_callbacks():
    return []

def settings():
    return {}

def between(learn):
    pass
"""


def test_a_plain_case_is_captured(tmp_path: Path):
    assert judged_text(TEXT, 0, tmp_path).verdict == SAME_CAPTURED


@pytest.mark.parametrize(
    ("forward", "differs"),
    [
        ("CALLS.append(1); return self.lin(x)", "CALLS"),
        ("self.n = 1; return self.lin(x)", "MODEL.n"),
        ("torch.rand(1); return self.lin(x)", "first fit"),
        ("print('case: x'); return self.lin(x)", "lines"),
        ("return self.lin(x) * 1.0000001", "first fit"),
    ],
)
def test_the_comparison_sees_what_differs(forward: str, differs: str, tmp_path: Path):
    plain, other = tmp_path / "plain.py", tmp_path / "other.py"
    plain.write_text(TEXT.replace("return self.lin(x)", "return self.lin(torch.dropout(x, 0.1, True))"))
    other.write_text(
        plain.read_text().replace("return self.lin(torch", forward.replace("self.lin(x)", "self.lin(torch"))
    )
    if "1.0000001" in forward:
        other.write_text(plain.read_text().replace("True))", "True)) * 1.0001"))
    found = differences(run(plain, "eager").values, run(other, "eager").values)
    assert any(name.startswith(differs) for name in found), found
