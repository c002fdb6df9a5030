import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecycle.optim.schedules import cosine, exponential, one_cycle


def lesson(step: int) -> float:
    return one_cycle(step, 781, 1e-2 / 25, 1e-2, 1e-2 / 25e4)


def test_the_lessons_own_cycle():
    found = [lesson(step) for step in (0, 1, 117, 234, 780)]
    assert found == pytest.approx([4e-4, 4.00432586e-4, 5.2e-3, 1e-2, 1.224635772e-7], rel=1e-8)
    assert one_cycle(0, 781, 0.95, 0.85, 0.95) == pytest.approx(0.95)
    assert one_cycle(234, 781, 0.95, 0.85, 0.95) == pytest.approx(0.85)


def test_a_cycle_leaves_its_end_behind():
    assert one_cycle(781, 781, 0.95, 0.85, 0.95) == pytest.approx(0.95)
    assert lesson(781) == pytest.approx(1e-2 / 25e4)


def test_without_a_rise_phase_one_still_takes_one_step():
    values = [one_cycle(step, 3, 1.0, 2.0, 0.0, pct_start=0.3) for step in range(4)]
    assert values == pytest.approx([1.0, 2.0, cosine(2.0, 0.0, 1 / 3), cosine(2.0, 0.0, 2 / 3)])


def test_a_cycle_that_only_rises_ends_at_its_peak():
    assert one_cycle(10, 10, 1.0, 2.0, 0.0, pct_start=1.0) == pytest.approx(2.0)


@given(steps=st.integers(2, 2000), pct=st.floats(0.0, 1.0))
def test_the_peak_is_where_it_should_be_and_nothing_is_above_it(steps: int, pct: float):
    values = [one_cycle(step, steps, 0.1, 1.0, 0.01, pct) for step in range(steps + 1)]
    peak = max(1, int(steps * pct))
    assert values[peak] == pytest.approx(1.0)
    assert max(values) <= 1.0 + 1e-12
    assert all(a <= b + 1e-12 for a, b in zip(values[:peak], values[1 : peak + 1], strict=True))
    assert all(a >= b - 1e-12 for a, b in zip(values[peak:-1], values[peak + 1 :], strict=True))


def test_exponential_goes_by_equal_factors():
    values = [exponential(1e-7, 10, i / 100) for i in range(101)]
    assert values[0] == 1e-7
    assert values[-1] == pytest.approx(10)
    factors = [b / a for a, b in zip(values[:-1], values[1:], strict=True)]
    assert factors == pytest.approx([10 ** (8 / 100)] * 100)


def test_cosine_is_half_a_wave():
    assert cosine(3, 5, 0) == 3
    assert cosine(3, 5, 1) == 5
    assert cosine(3, 5, 0.25) == pytest.approx(4 - math.cos(math.pi / 4))
