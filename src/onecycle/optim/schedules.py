"""Schedules: pure functions from a 0-based step to a value. No torch, no state.

The cycle is Leslie Smith's (https://arxiv.org/abs/1803.09820) with the phases that the lesson's software gave it.
"""

from collections.abc import Callable, Sequence
from math import cos, pi
from typing import TypeAlias

from onecycle.core.checks import positive, share
from onecycle.core.errors import SettingError

Rates: TypeAlias = tuple[list[float], float | None]
"""Learning rates, one a layer group, and momentum; None leaves the momentum alone."""
Schedule: TypeAlias = Callable[[int], Rates]
"""From a step to the learning rate of each layer group and the momentum, None where it stays as it is."""


def cosine(start: float, end: float, part: float) -> float:
    """From `start` (part 0) to `end` (part 1) along half a cosine wave."""
    return end + (start - end) / 2 * (1 + cos(pi * part))


def exponential(start: float, end: float, part: float) -> float:
    """From `start` (part 0) to `end` (part 1) by equal factors."""
    return start * (end / start) ** part


def one_cycle(step: int, steps: int, start: float, peak: float, end: float, pct_start: float = 0.3) -> float:
    """The value at `step` of a cycle of `steps` steps: up to `peak` in the first `pct_start` of it, then to `end`.

    The peak is exactly at step `int(steps * pct_start)`, or at step 1 where that is 0. `step == steps` is the value
    that the cycle leaves behind.
    """
    rise = int(steps * pct_start)
    fall = max(1, steps - rise)
    rise = max(1, rise)
    if step < rise:
        return cosine(start, peak, step / rise)
    return cosine(peak, end, min(1.0, (step - rise) / fall))


def constant_schedule(lrs: Sequence[float]) -> Schedule:
    """The same learning rates at every step."""
    return lambda _: (list(lrs), None)


def range_schedule(starts: Sequence[float], ends: Sequence[float], steps: int) -> Schedule:
    """From `starts` to `ends` (one for each layer group) by equal factors in `steps` steps."""
    return lambda step: ([exponential(start, end, step / steps) for start, end in zip(starts, ends, strict=True)], None)


def momentum_pair(moms: float | tuple[float, float]) -> tuple[float, float]:
    """The momentum at the ends and at the peak of a cycle; one number stands for both. Raises SettingError."""
    pair = tuple(moms) if isinstance(moms, tuple | list) else (moms, moms)
    if len(pair) != 2:
        raise SettingError(f"moms is {moms!r}; expected two numbers, for example (0.95, 0.85)")
    high, low = (share(mom, "moms", "momentum") for mom in pair)
    return high, low


def one_cycle_schedule(
    steps: int,
    peaks: Sequence[float],
    moms: tuple[float, float],
    div_factor: float,
    pct_start: float,
    final_div: float,
) -> Schedule:
    """One cycle for each layer group, from peak / div_factor over peak to peak / final_div; momentum mirrors it.

    Raises SettingError for settings that make no cycle.
    """
    div_factor, final_div = positive(div_factor, "div_factor"), positive(final_div, "final_div")
    pct_start = share(pct_start, "pct_start", "a share of the cycle")
    high, low = moms

    def schedule(step: int) -> tuple[list[float], float]:
        lrs = [one_cycle(step, steps, peak / div_factor, peak, peak / final_div, pct_start) for peak in peaks]
        return lrs, one_cycle(step, steps, high, low, high, pct_start)

    return schedule
