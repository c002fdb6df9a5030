"""What a partial calls."""

from functools import partial

from onecycle.core.partials import called


def test_partials_of_partials_and_other_callables():
    assert called(partial(partial(max, 1), 2)) is max
    assert called(max) is max
