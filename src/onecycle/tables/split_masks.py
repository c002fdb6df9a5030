"""Chooses the rows that validate, given numbers alone: at random, the same share of each class, whole groups."""

from typing import Any, TypeAlias

import numpy as np

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_SEARCH, _SLACK = 2**27, 10_000  # how much work finding a sum may be, and how many rows are found if it is more


def random_mask(rows: int, count: int, generator: np.random.Generator) -> Mask:
    """`count` of the rows."""
    chosen = np.zeros(rows, np.bool_)
    chosen[generator.permutation(rows)[:count]] = True
    return chosen


def stratified_mask(codes: Rows, count: int, generator: np.random.Generator) -> Mask:
    """About `count` rows: of each class its share, rounded down or up, and never all. `codes` (n,) count from 0.

    What rounding down leaves over goes to the classes that have none yet, then to those with the largest remainders.
    """
    sizes = np.bincount(codes)
    seats, remainder = np.divmod(sizes * count, len(codes))
    seats = np.minimum(seats, np.maximum(sizes - 1, 0))
    in_turn = np.lexsort((-remainder, seats > 0))
    in_turn = in_turn[seats[in_turn] + 1 < sizes[in_turn]]
    seats[in_turn[: count - seats.sum()]] += 1
    order = generator.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    place_in_class = np.arange(len(codes)) - np.repeat(sizes.cumsum() - sizes, sizes)
    chosen = np.zeros(len(codes), np.bool_)
    chosen[order[place_in_class < np.repeat(seats, sizes)]] = True
    return chosen


def group_mask(codes: Rows, count: int, generator: np.random.Generator) -> Mask:
    """Some of the groups, not all, with about `count` rows. `codes` (n,) number at least two groups from 0."""
    sizes = np.bincount(codes)
    order = generator.permutation(len(sizes))
    chosen = np.zeros(len(sizes), np.bool_)
    chosen[order[nearest_sum(sizes[order], count)]] = True
    return chosen[codes]


def nearest_sum(sizes: Rows, wanted: int) -> list[int]:
    """Positions of some, not all, of `sizes` (at least two, each above 0) that add up as near to `wanted` as can be.

    Notes sum after sum which size reaches it, and stops at `wanted`. Where that could take long, the first sizes are
    taken as they come and only the last 10,000 are looked for, so that the sum may miss by a few.
    """
    totals = sizes.cumsum()
    sure = int(np.searchsorted(totals, wanted - _SLACK, "right")) if len(sizes) * wanted > _SEARCH else 0
    wanted -= int(totals[sure - 1]) if sure else 0
    rest = sizes[sure:]
    limit = int(min(rest.sum() - rest.min(), max(2 * wanted, rest.min())))
    reached_by = np.full(limit + 1, -1)  # for each sum, the last of the sizes in it
    reached = np.arange(limit + 1) == 0
    for position in np.flatnonzero(rest <= limit)[: max(_SEARCH // (limit + 1), 64)]:
        size = rest[position]
        sums = np.flatnonzero(reached[: limit + 1 - size] & ~reached[size:]) + size
        reached[sums], reached_by[sums] = True, position
        if wanted <= limit and reached[wanted]:
            break
    sums = np.flatnonzero(reached)[0 if sure else 1 :]
    total = int(sums[np.abs(sums - wanted).argmin()])
    positions = list(range(sure))
    while total:
        positions.append(sure + int(reached_by[total]))
        total -= int(rest[reached_by[total]])
    return positions
