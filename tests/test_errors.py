"""Counts agree with their nouns; messages cannot harm a terminal; suggestions are found in little time."""

import difflib
from collections import Counter
from typing import Any

import pytest
import torch

from onecycle.errors import DataError, OutputError, did_you_mean, pluralize, printable, warn_user


def test_counts_agree_with_their_nouns():
    assert [pluralize(count, "row") for count in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert [pluralize(count, "batch", "es") for count in (1, 3)] == ["1 batch", "3 batches"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Łódź, 東京, 👩‍👧, a\u200cb\u00a0c", "plain, Łódź, 東京, 👩‍👧, a\u200cb\u00a0c"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\rb\x7f\x9b31m\x85", r"a\rb\x7f\x9b31m\x85"),
        ("\u202egnp.exe\u2066\u200b\ufeff\u2028", r"\u202egnp.exe\u2066\u200b\ufeff\u2028"),
        ("\udcfc\ud800\U000e0041", r"\udcfc\ud800\U000e0041"),
        ("two\nlines\tand", "two\nlines\tand"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str):
    assert printable(text) == shown
    assert printable(text, one_line=True) == shown.replace("\n", r"\n").replace("\t", r"\t")
    assert str(DataError(text)) == shown
    assert str(OutputError(text)) == shown


def test_bytes_of_a_file_name_may_be_kept():
    assert printable("r\udcfcn\x1b\ud800", keep_bytes=True) == "r\udcfcn\\x1b\\ud800"


def test_suggestions_compare_few_names_and_none_that_is_long(monkeypatch: pytest.MonkeyPatch):
    compared = Counter[str]()

    class Counting(difflib.SequenceMatcher[str]):
        def set_seq1(self, a: str) -> None:
            compared["names"] += 1
            super().set_seq1(a)

        def ratio(self) -> float:
            compared["characters"] += len(self.a) * len(self.b)
            return super().ratio()

    monkeypatch.setattr(difflib, "SequenceMatcher", Counting)
    assert (
        did_you_mean("price_of_5", [f"x{i}" for i in range(5_000)] + ["price_of_6"]) == '; did you mean "price_of_6"?'
    )
    found = list[Counter[str]]()
    for count in (10_000, 20_000):
        compared.clear()
        did_you_mean("column_12", [f"column_{i:05}" for i in range(count)])
        found.append(Counter(compared))
    assert found[0]["names"] > 0
    assert found[1]["names"] <= found[0]["names"] + 2
    compared.clear()
    assert not did_you_mean("ab" * 10_000, ["ba" * 10_000, "ab" * 10_001])
    assert compared["characters"] < 1_000_000


def test_a_warning_names_the_line_that_called_the_library_however_deep_it_is() -> None:
    inside: dict[str, Any] = {"__name__": "onecycle.deep", "warn_user": warn_user}
    exec("def warn(depth):\n    warn(depth - 1) if depth else warn_user('a word', RuntimeWarning)", inside)
    for depth in (0, 1, 7):
        with pytest.warns(RuntimeWarning, match="^a word$") as caught:
            torch.no_grad()(inside["warn"])(depth)
        assert caught[0].filename == __file__
