"""How often a fit is kept."""

from typing import Any

import pytest

from onecycle.core.errors import SettingError
from onecycle.keep.every import Every


@pytest.mark.parametrize(
    ("given", "every"),
    [
        *((500, Every(batches=500)), ("500", Every(batches=500)), ("500 batches", Every(batches=500))),
        *(("1 epoch", Every(epochs=1)), ("2epochs", Every(epochs=2)), (" 3 Epochs ", Every(epochs=3))),
        *(("30 s", Every(seconds=30)), ("1.5 min", Every(seconds=90)), ("2 hours", Every(seconds=7200))),
        *(("10 seconds", Every(seconds=10)), ("1 step", Every(batches=1)), ("5 mins", Every(seconds=300))),
        *(("10 minutes", Every(seconds=600)), ("3 batches", Every(batches=3)), ("1 h", Every(seconds=3600))),
    ],
)
def test_what_people_write(given: Any, every: Every):
    assert Every.parse(given) == every


@pytest.mark.parametrize("given", ["", "epoch", "0 epochs", "1.5 epochs", "-1 s", "3 weeks", "s", "0", "1e3 s"])
def test_what_nobody_means(given: str):
    with pytest.raises(SettingError) as caught:
        Every.parse(given)
    assert str(caught.value).startswith(f"every is {given!r}; expected a number of batches, or text such as")


@pytest.mark.parametrize("given", [0, -1, 1.5, None, True])
def test_numbers_are_whole(given: Any):
    with pytest.raises(SettingError, match="every is"):
        Every.parse(given)
