"""How often a fit is kept."""

from typing import Any

import pytest

from onecycle.checkpoint.writer import Interval
from onecycle.errors import SettingError


@pytest.mark.parametrize(
    ("given", "every"),
    [
        *((500, Interval(batches=500)), ("500", Interval(batches=500)), ("500 batches", Interval(batches=500))),
        *(("1 epoch", Interval(epochs=1)), ("2epochs", Interval(epochs=2)), (" 3 Epochs ", Interval(epochs=3))),
        *(("30 s", Interval(seconds=30)), ("1.5 min", Interval(seconds=90)), ("2 hours", Interval(seconds=7200))),
        *(("10 seconds", Interval(seconds=10)), ("1 step", Interval(batches=1)), ("5 mins", Interval(seconds=300))),
        *(("10 minutes", Interval(seconds=600)), ("3 batches", Interval(batches=3)), ("1 h", Interval(seconds=3600))),
    ],
)
def test_what_people_write(given: Any, every: Interval):
    assert Interval.parse(given) == every


@pytest.mark.parametrize("given", ["", "epoch", "0 epochs", "1.5 epochs", "-1 s", "3 weeks", "s", "0", "1e3 s"])
def test_what_nobody_means(given: str):
    with pytest.raises(SettingError) as caught:
        Interval.parse(given)
    assert str(caught.value).startswith(f"every is {given!r}; expected a number of batches, or text such as")


@pytest.mark.parametrize("given", [0, -1, 1.5, None, True])
def test_numbers_are_whole(given: Any):
    with pytest.raises(SettingError, match="every is"):
        Interval.parse(given)
