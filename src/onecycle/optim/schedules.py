"""Schedules: pure functions from a 0-based step to learning rates and momentum. No torch, no state.

The cycle is Leslie Smith's (https://arxiv.org/abs/1803.09820) with the phases of the lesson's software (fastai v1).
A schedule is data: `to_dict` returns it as JSON values, `schedule_from_dict` creates it again.
"""

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from typing import Any, ClassVar, NamedTuple

from onecycle.core.checks import check_fraction, check_positive
from onecycle.errors import SettingError


class Rates(NamedTuple):
    """Learning rates, one for each layer group, and the momentum; None leaves the momentum unchanged."""

    lrs: list[float]
    mom: float | None


class Schedule(ABC):
    """Maps a step to the learning rate of each layer group and the momentum."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, step: int) -> Rates:
        """Return learning rates and momentum of a step."""

    @property
    def anneals_from(self) -> int:
        """The step from which the learning rate falls; 0 if it never rises."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as JSON values."""
        return {"kind": self.kind, **asdict(self)}  # pyright: ignore[reportArgumentType] -- each is a dataclass


def cosine(start: float, end: float, part: float) -> float:
    """Interpolate from `start` (part 0) to `end` (part 1) along half a cosine wave."""
    return end + (start - end) / 2 * (1 + cos(pi * part))


def exponential(start: float, end: float, part: float) -> float:
    """Interpolate from `start` (part 0) to `end` (part 1) geometrically."""
    return start * (end / start) ** part


def one_cycle(step: int, steps: int, start: float, peak: float, end: float, pct_start: float = 0.3) -> float:
    """Return the value at `step` of a cycle of `steps` steps: up to `peak` in its first `pct_start`, then to `end`.

    The peak is exactly at step `int(steps * pct_start)`, or at step 1 if that is 0. `step == steps` is the value after
    the cycle.
    """
    rise = int(steps * pct_start)
    fall = max(1, steps - rise)
    rise = max(1, rise)
    if step < rise:
        return cosine(start, peak, step / rise)
    return cosine(peak, end, min(1.0, (step - rise) / fall))


@dataclass(frozen=True)
class Constant(Schedule):
    """Constant learning rates."""

    kind = "constant"
    lrs: list[float]
    mom: float | None = None

    def __call__(self, step: int) -> Rates:
        return Rates(list(self.lrs), self.mom)


@dataclass(frozen=True)
class ExponentialRamp(Schedule):
    """Geometric from `starts` to `ends` (one for each layer group) in `steps` steps."""

    kind = "range"
    starts: list[float]
    ends: list[float]
    steps: int

    def __call__(self, step: int) -> Rates:
        part = min(1.0, step / self.steps)  # rates are computed for a whole epoch, though the LR finder ends earlier
        return Rates([exponential(start, end, part) for start, end in zip(self.starts, self.ends, strict=True)], None)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One cycle for each layer group: peak / div_factor, up to peak, down to peak / final_div; momentum mirrors it."""

    kind = "one cycle"
    steps: int
    peaks: list[float]
    moms: tuple[float, float]  # at the ends, and at the peak
    div_factor: float
    pct_start: float
    final_div: float

    @property
    def anneals_from(self) -> int:
        """The step of the peak."""
        return int(self.steps * self.pct_start)

    def __call__(self, step: int) -> Rates:
        lrs = [
            one_cycle(step, self.steps, peak / self.div_factor, peak, peak / self.final_div, self.pct_start)
            for peak in self.peaks
        ]
        high, low = self.moms
        return Rates(lrs, one_cycle(step, self.steps, high, low, high, self.pct_start))


@dataclass(frozen=True)
class Annealed(Schedule):
    """`before` up to step `start`, then `steps` steps down to `ends` along half a cosine wave.

    The momentum moves to `mom`, where `before` would have ended.
    """

    kind = "annealed"
    before: Schedule
    start: int
    steps: int
    ends: list[float]
    mom: float | None

    @property
    def anneals_from(self) -> int:
        """Step `start`, or that of `before` if it is earlier."""
        return min(self.before.anneals_from, self.start)

    def __call__(self, step: int) -> Rates:
        if step < self.start:
            return self.before(step)
        lrs, mom = self.before(self.start)
        part = min(1.0, (step - self.start) / self.steps)
        if mom is not None and self.mom is not None:
            mom = cosine(mom, self.mom, part)
        return Rates([cosine(lr, end, part) for lr, end in zip(lrs, self.ends, strict=True)], mom)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "kind": self.kind, "before": self.before.to_dict()}


@dataclass(frozen=True)
class Extended(Schedule):
    """`before` up to step `start`, then `after`, with `warm` steps of transition between the two."""

    kind = "extended"
    before: Schedule
    start: int
    after: Schedule
    warm: int

    @property
    def anneals_from(self) -> int:
        """The step of the new peak."""
        return max(self.start + self.warm, self.after.anneals_from)

    def __call__(self, step: int) -> Rates:
        if step < self.start:
            return self.before(step)
        lrs, mom = self.after(step)
        if step - self.start >= self.warm:
            return Rates(lrs, mom)
        part, (first, first_mom) = (step - self.start) / self.warm, self.before(self.start)
        if mom is not None and first_mom is not None:
            mom = cosine(first_mom, mom, part)
        return Rates([cosine(low, lr, part) for low, lr in zip(first, lrs, strict=True)], mom)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "kind": self.kind, "before": self.before.to_dict(), "after": self.after.to_dict()}


def annealed(schedule: Schedule, start: int, steps: int, last: int) -> Annealed:
    """Return `schedule` up to `start`, then down in `steps` steps to where it would have ended at step `last`.

    A constant rate falls to a ten-thousandth of it.
    """
    ends, mom = schedule(last)
    if isinstance(schedule, Constant):
        ends = [lr * 1e-4 for lr in ends]
    return Annealed(schedule, start, steps, ends, mom)


def extended(schedule: Schedule, start: int, steps: int) -> Extended:
    """Return a schedule that ended at `start`, lengthened by `steps` as if its cycle had been longer.

    The rate rises to that of the longer cycle in a twentieth of the new steps.
    """
    after = schedule
    while isinstance(after, Extended):
        after = after.after
    if isinstance(after, OneCycle):
        after = replace(after, steps=start + steps)
    return Extended(schedule, start, after, max(steps // 20, 1))


def schedule_from_dict(description: Any) -> Schedule:
    """Create the schedule that `to_dict` described. Raises ValueError for anything else."""
    kinds: dict[str, type[Any]] = {
        kind.kind: kind for kind in (Constant, ExponentialRamp, OneCycle, Annealed, Extended)
    }
    if not isinstance(description, dict) or description.get("kind") not in kinds:
        raise ValueError(f"{reprlib.repr(description)} is not a schedule")
    fields = {key: value for key, value in description.items() if key != "kind"}  # pyright: ignore[reportUnknownVariableType] -- JSON
    for part in ("before", "after"):
        if part in fields:
            fields[part] = schedule_from_dict(fields[part])
    try:
        if any(isinstance(number, bool) for value in fields.values() for number in _as_list(value)):
            raise TypeError("it holds true or false")
        schedule: Schedule = kinds[description["kind"]](**fields)
        schedule(0)
    except (TypeError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"{reprlib.repr(description)} is not a schedule ({error})") from error
    return schedule


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def momentum_pair(moms: float | tuple[float, float]) -> tuple[float, float]:
    """Return the momentum at the ends and at the peak of a cycle; one number is used for both.

    Raises SettingError unless both are in [0, 1). With a momentum of 1 no gradient would ever decay.
    """
    pair = tuple(moms) if isinstance(moms, tuple | list) else (moms, moms)
    if len(pair) != 2:
        raise SettingError(f"moms is {moms!r}; expected two numbers, for example (0.95, 0.85)")
    high, low = (check_fraction(mom, "moms", "momentum") for mom in pair)
    if max(high, low) == 1:
        raise SettingError(f"moms is {moms!r}; expected momentum below 1, for example (0.95, 0.85)")
    return high, low


def one_cycle_schedule(
    steps: int,
    peaks: Sequence[float],
    moms: tuple[float, float],
    div_factor: float,
    pct_start: float,
    final_div: float | None,
) -> OneCycle:
    """Return one cycle of `steps` steps; `final_div` is by default `div_factor * 1e4`.

    Raises SettingError for settings that cannot be used.
    """
    div_factor = check_positive(div_factor, "div_factor")
    final_div = check_positive(div_factor * 1e4 if final_div is None else final_div, "final_div")
    return OneCycle(
        steps, list(peaks), moms, div_factor, check_fraction(pct_start, "pct_start", "a share of the cycle"), final_div
    )
