"""Nested state as JSON and tensors: exactly as it was, or refused."""

import json
import math
import random
from collections import OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from onecycle.core.trees import CannotPackError, Packer, Unpacker

CPU = torch.device("cpu")
LAYER = nn.Linear(3, 2)
PARAMETERS = dict(LAYER.named_parameters())


def through_files(value: Any, existing: Any = None) -> Any:
    """A value as a checkpoint gives it back."""
    packer = Packer(PARAMETERS, CPU)
    text = json.dumps(packer.pack(value, "v"), allow_nan=False)
    tensors = load(save({name: tensor.contiguous() for name, tensor in packer.tensors.items()}))
    return Unpacker(tensors, PARAMETERS, CPU).unpack(json.loads(text), existing)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
        bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (found, expected)]
        assert torch.equal(*bits)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert found.tolist() == expected.tolist()
    elif isinstance(expected, dict):
        assert [*found] == [*expected]
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple | deque):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    else:
        assert found == expected or (found != found and expected != expected)


VALUES: list[Any] = [
    *(None, True, 0, -1, 2**53 + 1, 2**200, 0.1, 5e-324, -0.0, math.inf, -math.inf, math.nan, "inf", "", "nan", "$"),
    *(1j, complex(math.inf, -0.0), b"\x00\xff", torch.float16, torch.device("cpu"), torch.Size([2, 3]), np.float32(0.1)),
    *(np.int64(7), np.str_("a"), np.bool_(True)),
    [1, [2.0, None], ("a", (True,))], {"a": {"b": [1]}}, {"$": 1}, {1: "a", (1, 2): None, 0.5: [], None: 1},
    OrderedDict(b=1, a=2), defaultdict(list, a=[1]), deque([1, 2], maxlen=3), {1, 2}, frozenset({"a"}),
    *(torch.arange(6).view(2, 3), torch.tensor(3), torch.zeros(0, 4), torch.tensor([math.inf, math.nan])),
    *(torch.ones(2, dtype=kind) for kind in (torch.float64, torch.bfloat16, torch.float16, torch.complex64)),
    torch.ones(2, 2, dtype=torch.complex128), torch.tensor([True, False]), torch.arange(3, dtype=torch.uint8),
    torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.arange(6).view(2, 3).T,
    *(np.arange(4.0), np.array([["a", "bc"]]), np.array(3), np.array([1, None], dtype=object), np.zeros((0, 2), "i2")),
    np.arange(3, dtype=">i4"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_comes_back_as_it_was(value: Any):
    assert_same(through_files(value), value)
    assert_same(through_files([value, {"a": (value,)}]), [value, {"a": (value,)}])


def test_the_same_tensor_stays_the_same():
    tensor = torch.ones(3)
    first, second = through_files([tensor, {"a": tensor}])
    assert first is second["a"]


def test_parameters_are_those_of_the_model():
    state = {LAYER.weight: 1, "by id": {id(LAYER.bias): 2}, "data": LAYER.weight.data}
    found = through_files(state)
    assert found[LAYER.weight] == 1
    assert found["by id"] == {id(LAYER.bias): 2}
    assert found["data"].data_ptr() == LAYER.weight.data_ptr()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(4), 1, object()], "v/2 is of type object"),
        (iter([1]), "v is of type list_iterator"),
        (torch.eye(2).to_sparse(), "v is a tensor of another kind"),
        ({"flat": (flat := torch.ones(4)), "part": flat[1:3]}, "v/part is a view of v/flat, and would be a copy"),
        (LAYER.weight[0], "v is a view of weight"),
        (np.array(["2020-01-01"], "M8[D]"), "v is an array of datetime64"),
        (random.SystemRandom(), "v is of type SystemRandom"),
    ],
)
def test_what_cannot_come_back_is_refused(value: Any, message: str):
    with pytest.raises(CannotPackError, match=message):
        through_files(value)


GENERATORS: list[Any] = [
    lambda: torch.Generator().manual_seed(1),
    lambda: random.Random(1),
    lambda: np.random.RandomState(1),
    *(lambda kind=kind: np.random.Generator(getattr(np.random, kind)(1)) for kind in ("PCG64", "MT19937", "Philox", "SFC64")),
]  # fmt: skip


def draw(generator: Any) -> list[float]:
    if isinstance(generator, torch.Generator):
        return torch.randn(5, generator=generator).tolist()
    return (
        [generator.gauss(0, 1) for _ in range(5)]
        if isinstance(generator, random.Random)
        else [*generator.normal(size=5)]
    )


@pytest.mark.parametrize("make", GENERATORS)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_generator_goes_on(make: Any, is_there: bool):
    generator, existing = make(), make() if is_there else None
    draw(generator)
    found = through_files(generator, existing)
    assert found is existing or not is_there
    assert draw(found) == draw(generator)


def test_containers_and_tensors_that_are_there_are_filled():
    there = {"list": [0], "deque": deque([9], maxlen=2), "tensor": torch.zeros(2), "array": np.zeros(2)}
    value = {"list": [1, 2], "deque": deque([3], maxlen=2), "tensor": torch.ones(2), "array": np.ones(2)}
    before = dict(there)
    found = through_files(value, there)
    assert found is there
    assert all(found[name] is before[name] for name in before)
    assert_same(found, value)


def test_a_tensor_that_was_two_is_not_filled_twice():
    shared = torch.zeros(2)
    found = through_files({"a": torch.ones(2), "b": torch.full((2,), 2.0)}, {"a": shared, "b": shared})
    assert (found["a"].tolist(), found["b"].tolist()) == ([1, 1], [2, 2])


@pytest.mark.parametrize(
    "packed",
    [
        {"$": "generator", "kind": "RandomState", "state": {"bit_generator": "MT19937", "state": {"pos": 10**6}}},
        {"$": "generator", "kind": "numpy", "bits": "os", "state": {"bit_generator": "os", "state": {}}},
        {"$": "tensor", "name": "none"}, {"$": "parameter", "name": "none"}, {"$": "code"}, {"$": ["list"]},
        {"$": "array", "dtype": "V9999999", "shape": [1], "items": [1]}, {"$": "dtype", "value": "load"},
    ],
)  # fmt: skip
def test_what_was_not_packed_is_refused(packed: Any):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Unpacker({}, {}, CPU).unpack(packed)


def test_strides_of_a_file_allocate_nothing():
    unpacker = Unpacker({"a": torch.ones(2, 2)}, {}, CPU)
    found = unpacker.unpack({"$": "tensor", "name": "a", "stride": [2**40, 1]})
    assert found.untyped_storage().nbytes() == 16
