"""Counts agree with their nouns."""

from onecycle.errors import pluralize


def test_counts_agree_with_their_nouns():
    assert [pluralize(count, "row") for count in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert [pluralize(count, "batch", "es") for count in (1, 3)] == ["1 batch", "3 batches"]
