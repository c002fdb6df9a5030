"""Nested values: mapped, listed and joined, with their containers kept."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from onecycle.core.nested import concatenate, count_rows, leaves_by_path, map_leaves, map_tensors
from onecycle.errors import DataError

Pair = namedtuple("Pair", "logits aux")


@dataclass(frozen=True)
class Output:
    logits: Tensor
    hidden: Any = None


def ones(rows: int, columns: int = 2) -> Tensor:
    return torch.ones(rows, columns)


VALUES = {
    "tensor": (lambda rows: ones(rows), [""]),
    "tuple": (lambda rows: (ones(rows), [ones(rows, 1)]), ["[0]", "[1][0]"]),
    "dict": (lambda rows: OrderedDict(b=ones(rows), a=(ones(rows),)), ["['b']", "['a'][0]"]),
    "namedtuple": (lambda rows: Pair(ones(rows), ones(rows)), [".logits", ".aux"]),
    "dataclass": (lambda rows: Output(ones(rows), None), [".logits", ".hidden"]),
    "torch's": (lambda rows: torch.max(ones(rows), 1), ["[0]", "[1]"]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_containers_are_kept(kind: str):
    make, paths = VALUES[kind]
    value = make(3)
    assert [*leaves_by_path(value)] == paths
    doubled = map_tensors(lambda tensor: tensor * 2, value)
    joined = concatenate([value, make(2)], "output", [3, 2])
    assert type(doubled) is type(joined) is type(value)
    for path, leaf in leaves_by_path(value).items():
        if leaf is not None:
            assert torch.equal(leaves_by_path(doubled)[path], leaf * 2)
            assert torch.equal(leaves_by_path(joined)[path], torch.cat([leaf, leaf[:2]]))
    assert count_rows(value) == 3


def test_values_that_are_not_nested_alike():
    for other in ({"a": 1}, {"a": 1, "b": 2, "c": 3}, [1, 2], 1):
        with pytest.raises(KeyError, match="expected the keys a, b"):
            map_leaves(lambda a, b: a, {"a": 1, "b": 2}, other)
    for other in ([1], 1, {"a": 1}):
        with pytest.raises(ValueError, match="expected 2 values"):
            map_leaves(lambda a, b: a, (1, 2), other)
    assert map_leaves(lambda a, b: a + b, {"a": 1, "b": [2]}, {"b": (3,), "a": 4}) == {"a": 5, "b": [5]}


def test_a_number_a_batch_and_an_entry_a_row():
    assert concatenate([torch.tensor(1.0), torch.tensor(2.0)], "loss").tolist() == [1, 2]
    boxes = [[torch.ones(i, 4) for i in range(3)], [torch.ones(5, 4)]]
    assert [len(box) for box in concatenate(boxes, "boxes", [3, 1])] == [0, 1, 2, 5]
    assert concatenate([["a", "b"], ["c"]], "y", [2, 1]) == ["a", "b", "c"]
    assert concatenate([("logits", ones(1)), ("logits", ones(2))], "output")[0] == "logits"


@pytest.mark.parametrize(
    ("batches", "sizes", "message"),
    [
        (
            [torch.ones(2, 8, 3)] * 2,
            [8, 8],
            r"^output has shape \(2, 8, 3\) for 8 rows; expected the rows as its first",
        ),
        ([(ones(4), torch.ones(2, 4, 3))], [4], r"^output\[1\] has shape \(2, 4, 3\) for 4 rows"),
        (
            [{"a": ones(2)}, {"b": ones(2)}],
            [2, 2],
            r"^output has the parts \['a'\] in one batch and \['b'\] in another",
        ),
        (
            [ones(2, 3), ones(2, 4)],
            [2, 2],
            r"^output has shapes \(2, 3\) and \(2, 4\); expected one shape for each row",
        ),
        ([(ones(1), 1), (ones(1), 2)], [1, 1], r"^output\[1\] is of type int, and not the same in each batch"),
        ([(ones(1), None), (ones(1), ones(1))], [1, 1], r"^output\[1\] is of type NoneType, and not the same in each"),
    ],
)
def test_what_cannot_be_joined(batches: list[Any], sizes: list[int], message: str):
    with pytest.raises(DataError, match=message):
        concatenate(batches, "output", sizes)
