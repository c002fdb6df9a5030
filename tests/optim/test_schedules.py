import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecycle.errors import SettingError
from onecycle.optim.schedules import (
    Constant,
    ExponentialRamp,
    OneCycle,
    annealed,
    cosine,
    exponential,
    extended,
    momentum_pair,
    one_cycle,
    one_cycle_schedule,
    schedule_from_dict,
)

CYCLE = OneCycle(100, [1e-3, 1e-2], (0.95, 0.85), 25.0, 0.3, 1e4)


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


SCHEDULES = [
    *(Constant([1e-3]), Constant([1e-3, 1e-2], 0.9), ExponentialRamp([1e-7], [10.0], 50), CYCLE),
    *(annealed(CYCLE, 40, 20, 100), annealed(Constant([1.0]), 10, 10, 10), extended(CYCLE, 100, 60)),
    extended(extended(CYCLE, 100, 60), 160, 10),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.kind)
def test_a_schedule_is_data(schedule: Any):
    again = schedule_from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert [again(step) for step in range(200)] == [schedule(step) for step in range(200)]
    assert again.anneals_from == schedule.anneals_from


@pytest.mark.parametrize(
    "written",
    [
        *(None, 3, [], {}, {"kind": "os.system"}, {"kind": "constant"}, {"kind": "constant", "lrs": 3}),
        *(
            {"kind": "annealed", "before": {}},
            {"kind": "one cycle", "steps": 3},
            {"kind": "constant", "lrs": [1], "x": 2},
        ),
        {**CYCLE.to_dict(), "moms": None},
        {**CYCLE.to_dict(), "div_factor": 0},
    ],
)
def test_what_is_no_schedule(written: Any):
    with pytest.raises(ValueError, match="is not a schedule"):
        schedule_from_dict(written)


def test_annealing_goes_from_where_the_cycle_was_to_where_it_would_have_ended():
    turned = annealed(CYCLE, 50, 20, 100)
    assert [turned(step) for step in range(50)] == [CYCLE(step) for step in range(50)]
    assert turned(50)[0] == pytest.approx(CYCLE(50)[0])
    assert turned(50)[1] == pytest.approx(CYCLE(50)[1])
    assert turned(70)[0] == turned(99)[0] == pytest.approx(CYCLE(100)[0])
    assert turned(70)[1] == pytest.approx(0.95)
    lrs = [turned(step)[0][-1] for step in range(50, 71)]
    assert lrs == sorted(lrs, reverse=True)


def test_a_longer_cycle_takes_over_after_a_short_rise():
    longer = extended(CYCLE, 100, 100)
    whole = OneCycle(200, [1e-3, 1e-2], (0.95, 0.85), 25.0, 0.3, 1e4)
    assert [longer(step) for step in range(100)] == [CYCLE(step) for step in range(100)]
    assert longer(100)[0] == pytest.approx(CYCLE(100)[0])
    assert [longer(step) for step in range(105, 201)] == [whole(step) for step in range(105, 201)]
    rise = [longer(step)[0][-1] for step in range(100, 106)]
    assert rise == sorted(rise)


@pytest.mark.parametrize("moms", [1.0, (1.0, 0.85), (0.95, 1)])
def test_a_momentum_of_one_is_refused(moms: Any):
    with pytest.raises(SettingError, match=r"moms is .*1.*; expected momentum below 1, for example \(0.95, 0.85\)"):
        momentum_pair(moms)


@pytest.mark.parametrize("moms", [-0.1, (0.95, 1.5), float("nan"), "a", None])
def test_a_momentum_that_cannot_be_used(moms: Any):
    with pytest.raises(SettingError, match="moms is .*; expected momentum, from 0 to 1"):
        momentum_pair(moms)


@pytest.mark.parametrize(("moms", "expected"), [(0, (0, 0)), (0.9, (0.9, 0.9)), ([0.95, 0.85], (0.95, 0.85))])
def test_momentum(moms: Any, expected: tuple[float, float]):
    assert momentum_pair(moms) == expected


@pytest.mark.parametrize("div_factor", ["a", None, 0, float("inf")])
def test_a_cycle_is_divided_by_a_number(div_factor: Any):
    with pytest.raises(SettingError, match="div_factor is .*; expected a finite number above 0"):
        one_cycle_schedule(10, [1.0], (0.95, 0.85), div_factor, 0.3, None)
    with pytest.raises(SettingError, match="final_div is .*; expected a finite number above 0"):
        one_cycle_schedule(10, [1.0], (0.95, 0.85), 25.0, 0.3, "a" if div_factor is None else div_factor)


def test_a_cycle_ends_by_default_at_a_ten_thousandth_of_its_start():
    assert one_cycle_schedule(10, [1.0], (0.95, 0.85), 20, 0.3, None).final_div == 2e5
