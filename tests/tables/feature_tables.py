"""Tables of every kind of column, and Features fitted on them."""

from typing import Any

import numpy as np
import pyarrow as pa

from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile, profile_columns
from onecycle.tables.spec import TableSpec


def fitted(table: pa.Table, **kinds: str) -> Features:
    return Features.fit(table, profiles(table, kinds=kinds))


def profiles(table: pa.Table, kinds: Any = None) -> list[ColumnProfile]:
    return profile_columns(table, TableSpec((), kinds=kinds or {}))


def of(kind: str, name: str = "x") -> list[ColumnProfile]:
    """The profile of a lone column."""
    return [ColumnProfile(name, kind, "", 0, None)]


def real_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """Columns of every kind, with missing values."""
    random = np.random.default_rng(seed)
    some = lambda share: random.random(rows) < share  # noqa: E731
    return pa.table(
        {
            "age": pa.array(random.integers(18, 90, rows), mask=some(0.1)),
            "income": pa.array(random.lognormal(10, 1, rows)),
            "ratio": pa.array(random.normal(size=rows).astype(np.float32), from_pandas=True),
            "city": pa.array(random.choice(["Rome", "Oslo", "Lima", "Bonn"], rows), mask=some(0.2)),
            "member": pa.array(random.random(rows) < 0.3),
            "sold": pa.array(random.integers(15_000, 20_000, rows).astype("M8[D]"), mask=some(0.05)),
            "seen": pa.array((random.integers(0, 10**9, rows)).astype("M8[s]")),
        }
    )
