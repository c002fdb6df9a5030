import copy
from typing import Any

import pytest

from onecycle.errors import DataError
from onecycle.tables.features import Features
from tables.feature_tables import fitted, real_table

DAMAGED = [
    ([], "preprocessing is []; expected an object"),
    ({}, "preprocessing.format is None; expected 1, what this version of onecycle writes"),
    ({"format": 2, "columns": []}, "preprocessing.format is 2; expected 1, what this version of onecycle writes"),
    ({"format": True, "columns": []}, "preprocessing.format is True; expected 1, what this version of onecycle writes"),
    ({"format": 1}, "preprocessing.columns is None; expected a list"),
    ({"format": 1, "columns": [3]}, "preprocessing.columns[0] is 3; expected an object"),
]


CHANGES = [
    (0, "kind", "text", "preprocessing.columns[0].kind is 'text'; expected one of number, date, category"),
    (0, "name", 3, "preprocessing.columns[0].name is 3; expected text"),
    (0, "mean", "0", "preprocessing.columns[0].mean is '0'; expected a finite number"),
    (0, "mean", True, "preprocessing.columns[0].mean is True; expected a finite number"),
    (0, "mean", float("nan"), "preprocessing.columns[0].mean is nan; expected a finite number"),
    (0, "mean", 10**400, "preprocessing.columns[0].mean is 1000000000000000"),
    (0, "std", 0, "preprocessing.columns[0].std is 0; expected a finite number above 0"),
    (0, "flag", 1, "preprocessing.columns[0].flag is 1; expected true or false"),
    (1, "name", "age", "preprocessing.columns is ['age', 'age', 'ratio', 'city', 'member', 'sold', 'seen']; expected each column once"),
    (3, "form", "eval", "preprocessing.columns[3].form is 'eval'; expected one of text, number, bool"),
    (3, "values", ["a", "a"], "preprocessing.columns[3].values is ['a', 'a']; expected different texts"),
    (3, "values", ["a", 1], "preprocessing.columns[3].values is ['a', 1]; expected different texts"),
    (5, "fill", "soon", "preprocessing.columns[5].fill is 'soon'; expected an ISO date"),
    (5, "parts", [], "preprocessing.columns[5].parts is []; expected an object"),
    (5, "parts", {"era": [0, 1]}, "preprocessing.columns[5].parts.era is [0.0, 1.0]; expected mean and std of a part of dates"),
    (5, "parts", {"year": [0]}, "preprocessing.columns[5].parts.year is [0.0]; expected mean and std of a part of dates"),
    (5, "parts", {"year": [0, 0]}, "preprocessing.columns[5].parts.year is [0.0, 0.0]; expected mean and std of a part of dates"),
    (5, "parts", {"year": [0, "1"]}, "preprocessing.columns[5].parts.year[1] is '1'; expected a finite number"),
    (5, "lenient", None, "preprocessing.columns[5].lenient is None; expected true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "message"), DAMAGED)
def test_no_description_at_all(written: Any, message: str):
    with pytest.raises(DataError) as error:
        Features.from_dict(written)
    assert str(error.value) == f"{message}; take an undamaged copy, or train and save again"


@pytest.mark.parametrize(("column", "key", "value", "message"), CHANGES)
def test_a_damaged_description_is_refused(column: int, key: str, value: Any, message: str):
    written = copy.deepcopy(fitted(real_table()).to_dict())
    written["columns"][column][key] = value
    with pytest.raises(DataError) as error:
        Features.from_dict(written)
    assert str(error.value).startswith(message)
    del written["columns"][column][key]
    with pytest.raises(DataError):
        Features.from_dict(written)
