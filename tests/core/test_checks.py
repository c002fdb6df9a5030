"""Arguments are normalized."""

from functools import partial

from onecycle.core.checks import unwrap_partial


def test_partials_of_partials_and_other_callables():
    assert unwrap_partial(partial(partial(max, 1), 2)) is max
    assert unwrap_partial(max) is max
