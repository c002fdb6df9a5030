import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecycle.core.files import verify_checksum, with_checksum

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON, max_size=4)


@given(VALUES)
def test_there_and_back(values: dict[str, object]):
    assert verify_checksum(with_checksum(values)) == values
    assert json.loads(with_checksum(values)).keys() == {*values, "sha256"}


@given(VALUES, st.data())
def test_any_flipped_bit_shows(values: dict[str, object], data: st.DataObject):
    content = bytearray(with_checksum(values).encode())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError):  # noqa: PT011 -- what is not UTF-8 or not JSON has messages of its own
        verify_checksum(content.decode())


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": 1}', "3", '{"a": NaN, "sha256": ""}'])
def test_texts_that_nobody_signed(text: str):
    with pytest.raises(ValueError, match="SHA-256|JSON"):
        verify_checksum(text)
