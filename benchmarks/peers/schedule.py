"""Settings and schedule of the peers that have no one cycle of their own; imports nothing heavy."""

import math

BETAS, WD = (0.9, 0.99), 1e-2


def one_cycle(steps: int, peak: float, start: float = 0.3) -> list[float]:
    """Learning rates of a cosine cycle: up from peak / 25 in the first `start` of the steps, then down to nothing."""
    up = max(1, int(steps * start))
    rising = [peak / 25 + (peak - peak / 25) * (1 - math.cos(math.pi * i / up)) / 2 for i in range(up)]
    return rising + [peak * (1 + math.cos(math.pi * i / (steps - up))) / 2 for i in range(steps - up)]
