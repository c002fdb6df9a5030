"""Sizes as text and as numbers, and the default limits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onecycle.errors import SettingError
from onecycle.tables.cache.sizes import cache_limit, format_size, parse_memory_limit, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        *((1, 1), (2.5e9, 2_500_000_000), ("2 GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5 GiB", 3 * 2**29)),
        *(("12", 12), ("3k", 3_000), ("1 TB", 10**12), (" 7 B ", 7), (np.int64(9), 9)),
    ],
)
def test_a_size_is_bytes_or_text(text: Any, count: int):
    assert parse_size(text, "memory_limit") == count


@pytest.mark.parametrize("text", [0, -1, True, None, "", "2 XB", "1.2.3 GB", "GB", float("nan"), float("inf"), [1]])
def test_other_sizes_are_refused(text: Any):
    with pytest.raises(SettingError) as caught:
        parse_size(text, "memory_limit")
    assert str(caught.value) == (
        f'memory_limit is {text!r}; expected a number of bytes, or a size such as "500 MB" or "2 GB"'
    )


def test_sizes_are_shown_in_three_digits():
    assert [format_size(n) for n in (0, 999, 999_600, 2.13e9, 84e6, 20e9, 3e12)] == [
        *("0 bytes", "999 bytes", "1 MB", "2.13 GB", "84 MB", "20 GB", "3 TB")
    ]


def test_by_default_half_of_the_memory_that_is_available():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    assert 2**26 < parse_memory_limit(None) <= total // 2


def test_the_cache_may_take_20_gb_or_a_tenth_of_the_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tenth = shutil.disk_usage(tmp_path).total // 10
    assert cache_limit(tmp_path / "not" / "there") == max(20 * 10**9, tenth)
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", "3 GB")
    assert cache_limit(tmp_path) == 3 * 10**9
    monkeypatch.setenv("ONECYCLE_CACHE_LIMIT", "much")
    with pytest.raises(SettingError, match="ONECYCLE_CACHE_LIMIT is 'much'; expected a number of bytes"):
        cache_limit(tmp_path)
