from typing import Any

import pytest
import torch
from torch import nn

from conftest import Net, WithNorms
from onecycle.errors import SettingError
from onecycle.optim.groups import LayerGroups, freeze_groups, per_group, split_layers


def test_split_and_freeze():
    model = WithNorms()
    groups = split_layers(model, [model.head])
    assert [type(leaf).__name__ for leaf in groups[1]] == ["LayerNorm", "Linear", "Linear", "DirectParameter"]
    freeze_groups(groups, -1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"bn.weight", "bn.bias", "scale", *(f"head.{n}" for n in ("0.weight", "0.bias", "1.weight")),
                       "head.2.weight", "head.2.bias"}  # fmt: skip
    freeze_groups(groups, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_split_by_a_function_that_gives_the_groups():
    model = WithNorms()
    groups = split_layers(model, lambda m: [[m.conv, m.bn], [m.head]])
    assert [len(group) for group in groups] == [2, 3]


def test_split_at_a_stranger_is_refused():
    with pytest.raises(SettingError, match="is not a part of the model"):
        split_layers(Net(), [nn.Linear(1, 1)])


@pytest.mark.parametrize(
    ("rate", "groups", "expected"),
    [
        (1e-3, 3, [1e-3] * 3),
        (slice(1e-3), 1, [1e-3]),
        (slice(1e-3), 3, [1e-4, 1e-4, 1e-3]),
        (slice(1e-5, 1e-3), 3, [1e-5, 1e-4, 1e-3]),
        (slice(1e-5, 1e-3), 1, [1e-3]),
        ([1e-3, 2e-3], 2, [1e-3, 2e-3]),
    ],
)
def test_rates_per_group(rate: Any, groups: int, expected: list[float]):
    assert per_group(rate, groups) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), "fast", True, slice(None)])
def test_rates_that_cannot_be_used(rate: Any):
    with pytest.raises(SettingError, match="lr is .*expected a finite number above 0"):
        per_group(rate, 2)


def test_too_many_rates():
    with pytest.raises(SettingError, match=r"lr has 3 values for 2 layer group\(s\)"):
        per_group([1.0, 2.0, 3.0], 2)


@pytest.mark.parametrize("first", [-3, -2, -1, 0, 1, 2, 5])
def test_groups_are_counted_as_in_a_list(first: int):
    groups = split_layers(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), lambda m: [[m[0]], [m[1]]])
    freeze_groups(groups, first)
    trained = [group[0].weight.requires_grad for group in groups]
    assert trained == [group in groups[first:] for group in groups]


@pytest.mark.parametrize("first", ["a", 1.0, None, True])
def test_a_group_that_cannot_be_counted(first: Any):
    with pytest.raises(SettingError, match=r"freeze_to: n is .*; expected the index of a layer group: 0 is the first"):
        freeze_groups(split_layers(Net(), []), first)


@pytest.mark.parametrize("at", [3, "lin2", ["a"], [["a"]], [[Net().lin1], 3], lambda model: None])
def test_a_split_at_what_is_no_module(at: Any):
    with pytest.raises(SettingError, match=r"split: .* is not a part of the model; for example \[model.lin2\] is"):
        split_layers(Net(), at)


def test_groups_follow_the_model():
    model = nn.ModuleDict({"body": nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "head": nn.Linear(1, 1)})
    groups = LayerGroups(split_layers(model, [model["head"]]))
    groups.follow(model)
    body, head = list(groups[0]), list(groups[1])
    groups.follow(model)
    assert groups == [body, head]
    model["head"] = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))  # in its place
    model["body"].append(new := nn.Linear(1, 1))  # beside the others of its part
    model["extra"] = extra = nn.Linear(1, 1)  # in the last group
    del model["body"][1]
    groups.follow(model)
    assert groups == [[body[0], new], [*model["head"], extra]]


def test_a_parameter_of_its_own_follows_too():
    model = WithNorms()
    groups = LayerGroups(split_layers(model, lambda m: [[m.conv, m.bn], [m.head]]))
    groups.follow(model)
    assert groups[1][-1].parameter is model.scale  # which the function had left out
    model.scale = nn.Parameter(torch.zeros(3, 1))
    groups.follow(model)
    assert groups[1][-1].parameter is model.scale
    assert [len(group) for group in groups] == [2, 4]


def test_a_layer_that_is_shared_stays_in_both_groups():
    layer = nn.Linear(1, 1)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    groups = LayerGroups([[layer, model[1]], [layer]])
    groups.follow(model)
    assert groups == [[layer, model[1]], [layer]]


def test_groups_of_another_model_are_refused():
    with pytest.raises(SettingError, match="is not a part of the model"):
        split_layers(Net(), lambda model: [[model.lin1], [nn.Linear(1, 1)]])


def test_a_batch_norm_with_a_parametrization_is_trained_while_its_group_is_frozen():
    model = WithNorms()
    nn.utils.parametrizations.weight_norm(model.bn)
    freeze_groups(split_layers(model, [model.head]), -1)
    assert model.bn.bias.requires_grad
    assert not model.conv.bias.requires_grad
