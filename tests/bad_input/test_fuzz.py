"""Damaged files of every format give OneCycleError or what they hold: no other error, no warning."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bad_input.formats import FORMATS, good_state, table
from onecycle import DataBunch
from onecycle.errors import DataError, OneCycleError
from onecycle.tables.features import Features
from onecycle.tables.target import Target

pytestmark = pytest.mark.slow

# the same damages each time: what is found by chance is for fuzz.py
bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextmanager
def only_onecycle_errors() -> Iterator[None]:
    """A warning is an error here, and no other error than the library's is let through."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(OneCycleError):
            yield


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, float, int, bytes]]:
    """What is done to a file, one after the other: what, where (as a share of its length), how much, and with what."""
    one = st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "double"]),
        st.floats(0, 1),
        st.sampled_from([1, 2, 4, 8, 64]),
        st.one_of(
            st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" * 4, b"\n", b'"'])
        ),
    )
    return draw(st.lists(one, min_size=1, max_size=4))


def damaged(content: bytes, done: list[tuple[str, float, int, bytes]]) -> bytes:
    """`content` with these damages."""
    data = bytearray(content)
    for what, share, length, new in done:
        at = min(int(share * len(data)), max(len(data) - 1, 0))
        if what == "flip" and data:
            data[at] ^= 1 << length % 8
        elif what == "set":
            data[at : at + len(new)] = new
        elif what == "cut":
            del data[at:]
        elif what == "drop":
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
@given(done=damages())
@bounded
def test_damaged_files(name: str, done: list[tuple[str, float, int, bytes]], tmp_path: Path) -> None:
    if not hasattr(test_damaged_files, name):
        setattr(test_damaged_files, name, FORMATS[name].good())
    with only_onecycle_errors():
        FORMATS[name].feed(damaged(getattr(test_damaged_files, name), done), tmp_path)


@pytest.mark.parametrize("name", FORMATS)
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
@settings(bounded, max_examples=30)
def test_any_bytes(name: str, content: bytes, tmp_path: Path) -> None:
    with only_onecycle_errors():
        FORMATS[name].feed(content, tmp_path)


CELLS = st.one_of(
    st.sampled_from(
        ["", "NA", "1", "-0", "1e400", "-inf", "nan", "0x1F", "1_000", "1,5", "true", "False", "2024-02-30"]
    ),
    st.sampled_from(
        ["2024-01-31", "9999-12-31 23:59:59", "0001-01-01", "12:30", " ", "'", "\U0001f600", "e\u0301", "\x00", "\x7f"]
    ),
    st.floats(width=32).map(str),
    st.integers().map(str),
    st.text(max_size=5),
)


@given(
    names=st.lists(
        st.sampled_from(["a", "b", "y y", "é", "1", "__index_level_0__"]), min_size=2, max_size=4, unique=True
    ),
    rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=12),
    times=st.integers(1, 4),
    task=st.sampled_from([None, "classes", "regression", "multilabel"]),
)
@settings(bounded, max_examples=150)
def test_any_cells(names: list[str], rows: list[list[str]], times: int, task: str | None, tmp_path: Path) -> None:
    lines = [names, *(row[: len(names)] for row in rows * times)]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]
    (tmp_path / "a.csv").write_bytes("\n".join(quoted).encode("utf-8", "replace"))
    with only_onecycle_errors():
        data = DataBunch.from_table(tmp_path / "a.csv", names[-1], task, bs=1, device="cpu", seed=0)
        assert all(part.isfinite().all() for part in (*data.train_ds.tensors, *data.valid_ds.tensors))
        assert data.features is not None
        assert data.target is not None
        again = Features.from_dict(json.loads(json.dumps(data.features.to_dict())))
        assert again.to_dict() == data.features.to_dict()
        assert Target.from_dict(json.loads(json.dumps(data.target.to_dict()))).to_dict() == data.target.to_dict()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 2**65), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with another part at this place, or without it where `new` is ...; None stands for the whole."""
    if not path:
        return new
    value = copy.deepcopy(value)
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return value


STATE = good_state()
KINDS = {"features": Features.from_dict, "target": Target.from_dict}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(bounded, max_examples=300)
def test_changed_preprocessing_is_refused_or_works(kind: str, data: st.DataObject) -> None:
    good = STATE["info"][kind]
    written = changed(good, data.draw(st.sampled_from(places(good)[1:])), data.draw(st.one_of(st.just(...), JSON)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            made = KINDS[kind](written)
        except DataError:
            return
        with only_onecycle_errors():
            made.transform(table())
    assert made.to_dict()["format"] == 1


@given(data=st.data())
@settings(bounded, max_examples=300)
def test_a_changed_state_is_refused_or_works(data: st.DataObject, tmp_path: Path) -> None:
    place = data.draw(
        st.sampled_from(
            [place for place in places(STATE)[1:] if place[:2] not in (("info", "features"), ("info", "target"))]
        )
    )
    state = changed(STATE, place, data.draw(st.one_of(st.just(...), JSON, st.just(10**400))))
    assume(state != STATE)
    with only_onecycle_errors():
        FORMATS["bundle"].feed(json.dumps(state).encode(), tmp_path)
