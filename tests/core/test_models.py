import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from onecycle import MLP, DataBunch, Learner, TabularModel
from onecycle.core.models import architecture, build
from onecycle.errors import SettingError


def test_the_lessons_network():
    model = MLP(784, 50, 10)
    assert [tuple(p.shape) for p in model.parameters()] == [(50, 784), (50,), (10, 50), (10,)]
    assert model(torch.zeros(3, 28, 28)).shape == (3, 10)


def test_an_architecture_can_be_built_again():
    model = build(architecture(MLP(4, 3, 2)))
    assert model.sizes == (4, 3, 2)
    assert architecture(torch.nn.Linear(1, 1)) is None
    with pytest.raises(SettingError, match="unknown architecture 'CNN'; expected MLP or TabularModel"):
        build({"name": "CNN"})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((), "MLP(): expected at least two sizes, for example MLP(784, 50, 10)"),
        ((3,), "MLP(3,): expected at least two sizes, for example MLP(784, 50, 10)"),
        ((3, 0), "a size of MLP is 0; expected a whole number of at least 1"),
        (("a", 3), "a size of MLP is 'a'; expected a whole number of at least 1"),
        ((10.0, 3), "a size of MLP is 10.0; expected a whole number of at least 1"),
        (([784, 10],), "a size of MLP is [784, 10]; expected a whole number of at least 1"),
    ],
)
def test_sizes_that_make_no_network(sizes: tuple[Any, ...], message: str):
    with pytest.raises(SettingError) as error:
        MLP(*sizes)
    assert str(error.value) == message


def test_numpys_whole_numbers_are_sizes():
    assert json.dumps(architecture(MLP(np.int64(4), np.int32(2)))) == '{"name": "MLP", "sizes": [4, 2]}'


def rows(count: int = 5, numbers: int = 3, sizes: tuple[int, ...] = (4, 100), seed: int = 0) -> torch.Tensor:
    """A matrix as Features makes it."""
    random = torch.Generator().manual_seed(seed)
    codes = [torch.randint(0, size, (count, 1), generator=random).float() for size in sizes]
    return torch.cat([torch.randn(count, numbers, generator=random), *codes], 1)


def by_hand(model: TabularModel, x: torch.Tensor) -> torch.Tensor:
    """What the model computes, row by row."""
    weights = dict(model.named_parameters())
    linears = [layer for layer in model.layers if isinstance(layer, torch.nn.Linear)]
    found = []
    for row in x.tolist():
        inputs = row[: model.numbers]
        for i, size in enumerate(model.sizes):
            code = int(row[model.numbers + i])
            inputs = inputs + weights[f"embeddings.{i}.weight"][code if 0 <= code < size else 0].tolist()
        for number in row[: model.numbers]:
            for ramp in range(model.ramps):
                width = 4 / model.ramps
                inputs.append(min(max((number - (-2 + ramp * width)) / width, 0), 1))
        values = torch.tensor(inputs)
        for linear in linears[:-1]:
            values = F.linear(values, linear.weight, linear.bias).relu()
        found.append(F.linear(values, linears[-1].weight, linears[-1].bias))
    return torch.stack(found)


@pytest.mark.parametrize("ramps", [0, 1, 8])
def test_the_tabular_model_is_what_it_says(ramps: int):
    model = TabularModel(3, (4, 100), 2, hidden=(7, 5), ramps=ramps).eval()
    assert [embedding.embedding_dim for embedding in model.embeddings] == [3, 21]
    x = rows()
    torch.testing.assert_close(model(x), by_hand(model, x))
    assert model(x).shape == (5, 2)


@pytest.mark.parametrize(("numbers", "sizes"), [(3, ()), (0, (4, 100)), (1, (2,))])
def test_numbers_alone_and_categories_alone(numbers: int, sizes: tuple[int, ...]):
    model = TabularModel(numbers, sizes, 2, hidden=[4]).eval()
    x = rows(5, numbers, sizes)
    torch.testing.assert_close(model(x), by_hand(model, x))


def test_the_widths_are_256_and_128_unless_given():
    shapes = [layer.weight.shape for layer in TabularModel(2, [], 3).layers if isinstance(layer, torch.nn.Linear)]
    assert shapes == [(256, 18), (128, 256), (3, 128)]
    assert [type(layer).__name__ for layer in TabularModel(2, [], 3, hidden=[], dropout=0).layers] == ["Linear"]
    with torch.device("meta"):  # 600 million weights that nobody needs
        assert TabularModel(1, [10**6], 1).embeddings[0].embedding_dim == 600


def test_codes_out_of_range_are_as_unseen_ones():
    model = TabularModel(1, [4], 2, hidden=[8]).eval()
    unseen = model(torch.tensor([[0.5, 0.0]]))
    for code in (4.0, 5.0, -1.0, 1e9, -1e9):
        assert torch.equal(model(torch.tensor([[0.5, code]])), unseen)
    assert not model.embeddings[0].weight[0].any()


def test_training_leaves_unseen_codes_at_zero():
    model = TabularModel(1, [4], 2, hidden=[8])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.tensor([[0.5, 0.0], [0.1, 2.0]])).sum().backward()
        optimizer.step()
    assert not model.embeddings[0].weight[0].any()


def test_far_out_numbers_stay_finite():
    model = TabularModel(2, [3], 2).eval()
    assert model(torch.tensor([[30.0, -30.0, 1.0], [1e20, -1e20, 0.0]])).isfinite().all()


def test_its_forward_and_backward_can_be_traced():
    model = TabularModel(3, (4, 100), 2, hidden=[8], dropout=0)
    names, weights = zip(*model.named_parameters(), strict=True)

    def step(x: torch.Tensor, *weights: torch.Tensor) -> Any:
        loss = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (x,)).square().sum()
        return loss, *torch.autograd.grad(loss, weights)

    traced = make_fx(step)(rows(), *weights)
    other = rows(seed=1)
    for found, expected in zip(traced(other, *weights), step(other, *weights), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dropout", [0, 0.1])
def test_engines_agree_on_it(dropout: float):
    x, losses = rows(64, sizes=(4, 10)), []
    for engine in ("eager", "fast"):
        data = DataBunch.create((x, (x[:, 0] > 0).long()), bs=16, seed=3)
        torch.manual_seed(0)
        learn = Learner(data, TabularModel(3, (4, 10), 2, hidden=[8], dropout=dropout), silent=True, engine=engine)
        learn.fit_one_cycle(3, 1e-2)
        losses.append(learn.recorder.losses)
    assert losses[0] == losses[1]


def test_a_tabular_model_can_be_built_again():
    model = TabularModel(3, (4, 100), 2, hidden=(7, 5), dropout=0.25, ramps=4)
    description = architecture(model)
    assert description == {
        "name": "TabularModel", "numbers": 3, "sizes": [4, 100], "outputs": 2, "hidden": [7, 5], "dropout": 0.25, "ramps": 4,
    }  # fmt: skip
    again = build(description)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(rows()), model.eval()(rows()))
    assert not [name for name in model.state_dict() if name.startswith("_")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"numbers": -1}, "numbers is -1; expected a whole number of at least 0"),
        ({"numbers": 1.5}, "numbers is 1.5; expected a whole number of at least 0"),
        ({"outputs": 0}, "outputs is 0; expected a whole number of at least 1"),
        ({"sizes": [3, 0]}, "a size is 0; expected a whole number of at least 1"),
        ({"hidden": [10, 0]}, "a hidden width is 0; expected a whole number of at least 1"),
        ({"hidden": ["10"]}, "a hidden width is '10'; expected a whole number of at least 1"),
        ({"ramps": -1}, "ramps is -1; expected a whole number of at least 0"),
        ({"dropout": 1.5}, "dropout is 1.5; expected the share of a layer's numbers that is dropped, from 0 to 1"),
        ({"numbers": 0, "sizes": []}, "TabularModel(0, []) has no columns; expected at least one number or category"),
    ],
)
def test_settings_that_make_no_tabular_model(arguments: dict[str, Any], message: str):
    with pytest.raises(SettingError) as error:
        TabularModel(**{"numbers": 3, "sizes": [4], "outputs": 2, **arguments})
    assert str(error.value) == message


@pytest.mark.parametrize(
    "description", [{"name": "MLP"}, {"name": "TabularModel", "numbers": 3}, {"name": "TabularModel", "size": 3}]
)
def test_a_damaged_description(description: dict[str, Any]):
    with pytest.raises(SettingError, match=f"does not describe a {description['name']}"):
        build(description)


@pytest.mark.parametrize(
    "model", [MLP(6, 5, 3), TabularModel(3, (4, 100), 2, hidden=(7, 5)), TabularModel(0, [3], 1, hidden=[], ramps=0)]
)
def test_no_model_is_built_that_has_more_weights_than_are_known(model: torch.nn.Module):
    description, count = architecture(model), sum(weight.numel() for weight in model.parameters())
    assert architecture(build(description, n_weights=count)) == description
    with pytest.raises(
        SettingError, match=f"^describes a {type(model).__name__} of {count:,} weights; expected {count - 1:,}$"
    ):
        build(description, n_weights=count - 1)
