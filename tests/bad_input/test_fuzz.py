"""Damaged files of every format are read or raise OneCycleError: no other error, no warning."""

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

# the same examples in every run; fuzz.py draws others
bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextmanager
def only_onecycle_errors() -> Iterator[None]:
    """Suppress the library's errors; any other error, and any warning, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(OneCycleError):
            yield


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, float, int, bytes]]:
    """Draw edits of a file: the kind, the position as a fraction of its length, a length, and new bytes."""
    one = st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "double"]),
        st.floats(0, 1),
        st.sampled_from([1, 2, 4, 8, 64]),
        st.one_of(
            st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" * 4, b"\n", b'"'])
        ),
    )
    return draw(st.lists(one, min_size=1, max_size=4))


def damaged(content: bytes, edits: list[tuple[str, float, int, bytes]]) -> bytes:
    """Return `content` with these edits applied, one after the other."""
    data = bytearray(content)
    for kind, fraction, length, new in edits:
        at = min(int(fraction * len(data)), max(len(data) - 1, 0))
        if kind == "flip" and data:
            data[at] ^= 1 << length % 8
        elif kind == "set":
            data[at : at + len(new)] = new
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length]
    return bytes(data)


@pytest.mark.parametrize("name", FORMATS)
@given(edits=damages())
@bounded
def test_damaged_files(name: str, edits: list[tuple[str, float, int, bytes]], tmp_path: Path) -> None:
    if not hasattr(test_damaged_files, name):
        setattr(test_damaged_files, name, FORMATS[name].good())
    with only_onecycle_errors():
        FORMATS[name].feed(damaged(getattr(test_damaged_files, name), edits), tmp_path)


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


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to every part of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, part in inner for below in paths_in(part, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a JSON value with `new` at this path, or without that part if `new` is `...`."""
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
    edited = changed(good, data.draw(st.sampled_from(paths_in(good)[1:])), data.draw(st.one_of(st.just(...), JSON)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fitted = KINDS[kind](edited)
        except DataError:
            return
        with only_onecycle_errors():
            fitted.transform(table())
    assert fitted.to_dict()["format"] == 1


@given(data=st.data())
@settings(bounded, max_examples=300)
def test_a_changed_state_is_refused_or_works(data: st.DataObject, tmp_path: Path) -> None:
    path = data.draw(
        st.sampled_from(
            [path for path in paths_in(STATE)[1:] if path[:2] not in (("info", "features"), ("info", "target"))]
        )
    )
    state = changed(STATE, path, data.draw(st.one_of(st.just(...), JSON, st.just(10**400))))
    assume(state != STATE)
    with only_onecycle_errors():
        FORMATS["bundle"].feed(json.dumps(state).encode(), tmp_path)
