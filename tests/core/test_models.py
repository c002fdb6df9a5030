import pytest
import torch

from onecycle import MLP
from onecycle.core.errors import SettingError
from onecycle.core.models import architecture, build


def test_the_lessons_network():
    model = MLP(784, 50, 10)
    assert [tuple(p.shape) for p in model.parameters()] == [(50, 784), (50,), (10, 50), (10,)]
    assert model(torch.zeros(3, 28, 28)).shape == (3, 10)


def test_an_architecture_can_be_built_again():
    model = build(architecture(MLP(4, 3, 2)))
    assert model.sizes == (4, 3, 2)
    assert architecture(torch.nn.Linear(1, 1)) is None
    with pytest.raises(SettingError, match="unknown architecture 'CNN'; expected MLP"):
        build({"name": "CNN"})


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0)])
def test_sizes_that_make_no_network(sizes: tuple[int, ...]):
    with pytest.raises(SettingError, match="expected at least two sizes, each 1 or more"):
        MLP(*sizes)
