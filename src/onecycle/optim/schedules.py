"""Schedules: pure functions from a 0-based step to a value. No torch, no state.

The cycle is Leslie Smith's (https://arxiv.org/abs/1803.09820) with the phases that the lesson's software gave it.
"""

from math import cos, pi


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
