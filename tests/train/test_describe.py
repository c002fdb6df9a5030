"""Descriptions of what a fit holds: many items are told apart without looking into each."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onecycle.train.describe import Description, resolved

MANY: dict[str, Any] = {
    "paths with labels": ([(f"{i}.jpg", i % 7) for i in range(5_000)], (4_321, ("other.jpg", 2))),
    "numbers": ([*range(5_000)], (4_321, -1)),
    "numbers of another kind": ([*range(5_000)], (4_321, 4_321.0)),
    "texts": ([f"{i}" for i in range(5_000)], (4_321, "other")),
    "bytes": ([b"%d" % i for i in range(5_000)], (4_321, b"other")),
    "tensors": ([{"id": i, "x": torch.tensor([i, 2.0])} for i in range(50)], (43, {"id": 43, "x": torch.zeros(2)})),
    "arrays": ([(np.full(2, i), np.float32(i)) for i in range(50)], (43, (np.full(2, 43.0), np.float32(43)))),
    "dates": ([datetime.date(2026, 1, 1)] * 50, (43, datetime.date(2026, 1, 2))),
}


def described(value: Any, is_quick: bool = False) -> tuple[dict[str, Any], int]:
    description = Description(is_quick=is_quick)
    description.add("value", value)
    return resolved(description.values), description.visited


@pytest.mark.parametrize("case", MANY)
@pytest.mark.parametrize("is_dict", [False, True])
def test_one_of_many_items_differs(case: str, is_dict: bool):
    items, (place, other) = MANY[case]
    edited = [*items]
    edited[place] = other
    one, two, same = (dict(enumerate(each)) if is_dict else each for each in (items, edited, [*items]))
    (first, visited), (second, _), (third, _) = described(one), described(two), described(same)
    assert first != second
    assert first == third
    assert visited == 1


def test_an_edit_in_place_is_noticed():
    counts = [0] * 5_000
    before = described(counts, is_quick=True)
    assert described(counts, is_quick=True) == before
    counts[17] += 1
    assert described(counts, is_quick=True) != before


def test_folders_among_many_items_do_not_count():
    one, two = ([(Path(folder) / f"{i}.jpg", i % 7) for i in range(50)] for folder in ("here", "there"))
    assert described(one) == described(two)


def test_items_that_contain_themselves_end():
    items: list[Any] = [[i] for i in range(50)]
    items.append(items)
    assert described(items)[0]


def test_objects_among_many_items_are_looked_into():
    class Own:
        def __init__(self, i: int) -> None:
            self.i = i

    one, two = described([Own(i) for i in range(50)]), described([Own(i * (i != 43)) for i in range(50)])
    assert one[0] != two[0]
    assert one[1] > 50
