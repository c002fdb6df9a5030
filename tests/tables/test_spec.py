from typing import Any

import numpy as np
import pytest

from onecycle.errors import SettingError
from onecycle.tables.spec import TableSpec, excluded_feature, parse_split


def test_columns_are_named_by_text_alone_or_in_a_list():
    spec = TableSpec("y", drop=("a", "b"), kinds={"zip": "category", "age": "number"})
    assert (spec.targets, spec.dropped, spec.text_columns) == (["y"], ["a", "b"], ["zip"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": 3}, "the target is 3; expected the name of a column, or a list of names"),
        ({"target": ["y", None]}, "the target is ['y', None]; expected the name of a column, or a list of names"),
        ({"target": "y", "drop": [0]}, "drop is [0]; expected the name of a column, or a list of names"),
        ({"target": "y", "drop": "y"}, 'drop names "y", which is predicted; remove it from drop or from the target'),
        ({"target": "y", "drop": "citty"}, 'drop names "citty", but there is no such column; did you mean "city"?'),
        ({"target": "y", "drop": "q"}, 'drop names "q", but there is no such column; there are city, set, y'),
        (
            {"target": "y", "kinds": ["city"]},
            'kinds is [\'city\']; expected a dict of names: kinds={"zip": "category"}',
        ),
    ],
)
def test_names_that_cannot_be_used(settings: dict[str, Any], message: str):
    with pytest.raises(SettingError) as error:
        assert TableSpec(**settings).targets
        TableSpec(**settings).non_features(["city", "set", "y"])
    assert str(error.value) == message


def test_dropped_columns_and_that_of_the_split_are_no_features():
    columns = ["city", "set", "y"]
    assert TableSpec("y", drop=["city", "city"], split="column:set").non_features(columns) == ["city", "set"]
    assert TableSpec("y", drop="set", split="group:set").non_features(columns) == ["set"]
    assert TableSpec("y", split="time:set").non_features(columns) == []


def test_which_columns_are_no_features():
    assert excluded_feature("column:set") == "set"
    assert excluded_feature("group:patient") == "patient"
    for how in ("time:date", "random", "auto", [1, 2], np.array([True]), None):
        assert excluded_feature(how) is None


def test_a_split_is_parsed_into_its_way_and_column():
    assert parse_split("random") == ("random", None)
    assert parse_split("time:date") == ("time", "date")
    assert parse_split("group:a:b c") == ("group", "a:b c")
