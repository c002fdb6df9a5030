import gzip
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data.pickle_samples import CALLS, DAMAGED, DTYPE, RECONSTRUCT, SAMPLE, UNSAFE, python_2_array
from onecycle.data.pickles import load_pickle
from onecycle.errors import FileError, UnsafeFileError

pytestmark = pytest.mark.slow

REAL_FILE = Path(__file__).parents[2].parent / "shared" / "data" / "mnist.pkl.gz"
DTYPES = ["?", "i1", "<i2", ">i4", "i8", "u1", ">u2", "<u4", "u8", "f2", "<f4", ">f8", "c8", ">c16"]


def same(found, saved):
    """Equal in structure, types, dtype kind, shape and every number."""
    if isinstance(saved, (np.ndarray, np.generic)):
        assert type(found) is type(saved)
        assert found.dtype == saved.dtype.newbyteorder("=")
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, saved)
    elif isinstance(saved, (tuple, list)):
        assert type(found) is type(saved)
        assert len(found) == len(saved)
        for one, other in zip(found, saved, strict=True):
            same(one, other)
    elif isinstance(saved, dict):
        assert list(found) == list(saved)
        for key, item in saved.items():
            same(found[key], item)
    else:
        assert type(found) is type(saved)
        assert found == saved


@pytest.fixture
def written(tmp_path):
    """Writes bytes to a file and returns its path."""

    def write(content: bytes) -> Path:
        path = tmp_path / "data.pkl"
        path.write_bytes(content)
        return path

    return write


# what can be read


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("code", DTYPES)
def test_arrays_round_trip(written, protocol, code, compress):
    numbers = (np.arange(24) % 5).astype(code).reshape(2, 3, 4)
    read_only = numbers.copy()
    read_only.flags.writeable = False
    saved = {
        "C": numbers,
        "F": np.asfortranarray(numbers),
        "turned": numbers.transpose(1, 0, 2),
        "strided": numbers[:, ::2],
        "read only": read_only,
        "0-d": np.array(numbers[1, 2, 3]),
        "empty": np.zeros((0, 3), code),
        "scalar": numbers.dtype.type(3),
    }
    content = pickle.dumps(saved, protocol)
    found = load_pickle(written(gzip.compress(content) if compress else content))
    same(found, saved)
    assert all(array.flags.writeable for name, array in found.items() if name != "scalar")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_round_trip(written, protocol):
    saved = {
        "numbers": [0, -1, 255, 65536, 2**31, -(2**70), 1.5, float("inf"), True, False, None],
        "text": ("", "é\n\\", "x" * 300, "\U0001f600" * 300),
        "bytes": (b"", b"\0\xff", b"y" * 300, b"z" * 70_000),
        b"key": [(), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        7: {"deep": [[[[1]]]]},
        None: 1.0,
    }
    same(load_pickle(written(pickle.dumps(saved, protocol))), saved)


def test_a_bytearray_in_protocol_5(written):
    saved = [bytearray(b"short"), bytearray(b"long" * 100)]
    same(load_pickle(written(pickle.dumps(saved, 5))), saved)


@pytest.mark.parametrize("protocol", [2, 3])  # 4 and 5 state the lengths of names
@pytest.mark.parametrize(("old", "new"), [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")])
def test_module_names_before_and_after_numpy_2(written, protocol, old, new):
    saved = (np.arange(6.0).reshape(2, 3), np.float32(2))
    same(load_pickle(written(pickle.dumps(saved, protocol).replace(old, new))), saved)


def test_frombuffer_of_numpy_1(written):
    content = pickle.dumps(np.arange(3.0), 5)
    old = content.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
    assert old != content
    same(load_pickle(written(old)), np.arange(3.0))


def test_python_2_binary(written):
    numbers = np.arange(-3, 3, dtype="<f4").reshape(2, 3)
    content = b"\x80\x02" + python_2_array(numbers.tobytes(), b"K\x02K\x03\x86") + b"U\x04caf\xe9\x86."
    same(load_pickle(written(content)), (numbers, "café"))
    same(pickle.loads(content, encoding="latin1"), (numbers, "café"))  # the test's own pickle is a true one


def test_python_2_text(written):
    content = (
        b"(cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n(I1\n(I2\ntp7\n"
        b"cnumpy\ndtype\np8\n(S'i2'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'>'\np12\nNNNI-1\nI-1\nI0\ntp13\nbI00\n"
        b"S'\\x01\\xff\\n\\''\np14\ntp15\nbS\"it's\"\nL5L\nF1.5\nVu\\u20ac\nI01\nt."
    )
    same(load_pickle(written(content)), (np.array([0x01FF, 0x0A27], "i2"), "it's", 5, 1.5, "u€", True))
    same(pickle.loads(content, encoding="latin1")[1:], ("it's", 5, 1.5, "u€", True))


def test_sharing_is_kept(written):
    array, shared = np.arange(3), [1]
    found = load_pickle(written(pickle.dumps((array, array, shared, shared, (shared,)), 4)))
    assert found[0] is found[1]
    assert found[2] is found[3] is found[4][0]


def test_what_is_shared_exponentially_is_walked_once(written):
    saved = [1]
    for _ in range(90):
        saved = [saved, saved]
    found = load_pickle(written(pickle.dumps(saved, 4)))
    for _ in range(90):
        assert found[0] is found[1]
        found = found[0]
    assert found == [1]


@pytest.mark.slow
@pytest.mark.skipif(not REAL_FILE.exists(), reason="the course's own mnist.pkl.gz is not here")
def test_the_course_file():
    with gzip.open(REAL_FILE) as file:
        expected = pickle.load(file, encoding="latin1")
    same(load_pickle(REAL_FILE), expected)


def test_a_file_may_fill_the_cap(written):
    content = pickle.dumps(np.zeros(2_500_000), 4)
    path = written(gzip.compress(content, 1))
    assert load_pickle(path, max_bytes=len(content)).nbytes == 20_000_000
    with pytest.raises(FileError, match=rf"data\.pkl: takes more than the cap of {len(content) - 1:,} bytes .*max_by"):
        load_pickle(path, max_bytes=len(content) - 1)


# what is refused because it could run code


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_unrun(written, tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    value, named = CALLS[name]
    path = written(pickle.dumps([np.arange(2), value], protocol).replace(b"__builtin__", b"builtins"))
    with pytest.raises(UnsafeFileError, match=rf"data\.pkl: .*({named}).*nothing of it was run.*do not open"):
        load_pickle(path)
    assert not Path("canary").exists()


@pytest.mark.parametrize("name", UNSAFE)
def test_hand_made_attacks_are_refused_unrun(written, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, named = UNSAFE[name]
    with pytest.raises(UnsafeFileError, match=rf"data\.pkl: .*{named}.*\(byte \d+\); nothing of it was run"):
        load_pickle(written(content))
    assert not Path("canary").exists()


# what is refused because it is damaged, or made to exhaust the machine


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_exhausting_files(written, name):
    content, message = DAMAGED[name]
    with pytest.raises(FileError, match=rf"(?s)data\.pkl: .*({message})"):
        load_pickle(written(content))


def test_twice_as_many_keys_are_twice_the_work(written):
    """Whole numbers that are equal modulo 2**61 - 1 have one hash: a dict compares each with all the others."""

    def calls(count):
        keys = b"".join(pickle.dumps(i * (2**61 - 1) if i % 2 else i)[:-1] + b"N" for i in range(count))
        path = written(b"\x80\x02}(" + keys.replace(b"\x80\x04", b"") + b"u.")
        found = []
        sys.setprofile(lambda frame, event, arg: found.append(event))
        try:
            with suppress(FileError):
                load_pickle(path)
        finally:
            sys.setprofile(None)
        return len(found)

    assert calls(2_000) < 2.2 * calls(1_000)
    with pytest.raises(FileError, match="expected whole numbers below"):
        load_pickle(written(pickle.dumps({2**61 - 1: None})))
    assert load_pickle(written(pickle.dumps({2**61 - 2: 1, -(2**61) + 2: 2}))) == {2**61 - 2: 1, -(2**61) + 2: 2}


def test_the_tables_are_large():
    assert len(CALLS) * 3 + len(UNSAFE) + len(DAMAGED) >= 150


def test_bool_bytes_other_than_0_and_1(written):
    found = load_pickle(written(python_2_array(b"\x00\x01\x02\xff", b"K\x04\x85", b"b1", b"|") + b"."))
    np.testing.assert_array_equal(found.view(np.uint8), [0, 1, 1, 1])


@pytest.mark.parametrize(
    ("content", "cap"),
    [
        (gzip.compress(bytes(50_000_000), 1, mtime=0), 10_000_000),  # a gzip bomb
        (gzip.compress(b"}" * 2_000_000 + b".", 1, mtime=0), 10_000_000),  # small objects: 64 bytes for each byte
        (b"X\x20\xa1\x07\x00" + b"x" * 500_000 + b"q\x00(" + b"c_codecs\nencode\nh\x00Vlatin1\n\x86R" * 300 + b"t.", 10**6),
        (python_2_array(bytes(4_000_000), b"J\x40\x42\x0f\x00\x85")[:-1] + b"q\x06b0("  # one content, many arrays
         + (RECONSTRUCT + b"h\x06b") * 30 + b"l.", 5_000_000),
    ],
)  # fmt: skip
def test_no_file_takes_much_more_than_its_cap(written, content, cap):
    with pytest.raises(FileError, match=rf"takes more than the cap of {cap:,} bytes when unpacked; .*max_bytes="):
        load_pickle(written(content), max_bytes=cap)


@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_reported(written, protocol):
    content = pickle.dumps(SAMPLE, protocol)
    for end in range(1, len(content)):
        with pytest.raises(FileError, match=r"data\.pkl: .*(cut short|recalls|where an opcode).*copy or download it"):
            load_pickle(written(content[:end]))


def test_every_gzip_truncation_is_reported(written):
    packed = gzip.compress(pickle.dumps(SAMPLE, 4))
    for end in range(2, len(packed)):
        with pytest.raises(
            FileError, match=r"data\.pkl: damaged gzip after [\d,]+ unpacked bytes \(Compressed file end"
        ):
            load_pickle(written(packed[:end]))


def test_a_wrong_gzip_checksum(written):
    packed = bytearray(gzip.compress(pickle.dumps(SAMPLE, 4)))
    packed[-6] ^= 1
    with pytest.raises(FileError, match=r"data\.pkl: damaged gzip .*CRC check failed.*expected a whole gzip file"):
        load_pickle(written(packed))


def load_or_refuse(path: Path) -> None:
    """Loads, or raises one of the two errors: anything else fails the test."""
    with suppress(FileError, UnsafeFileError):
        load_pickle(path, max_bytes=10**6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(protocol=st.integers(0, 5), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1))
def test_flipped_bytes_never_surprise(written, protocol, flips):
    content = bytearray(pickle.dumps(SAMPLE, protocol))
    for place, byte in flips[:4]:
        content[int(place * len(content))] = byte
    load_or_refuse(written(content))


OPCODES = st.sampled_from([
    b"(", b"0", b"1", b"N", b"\x88", b"K\x01", b"K\x00", b"]", b"}", b")", b"\x85", b"\x86", b"\x87", b"t", b"l", b"d",
    b"a", b"e", b"s", b"u", b"b", b"R", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"\x94", b"U\x04abcd", b"C\x04abcd",
    b"\x93", b"X\x02\0\0\0f4", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"c_codecs\nencode\n", RECONSTRUCT, DTYPE,
    b"U\x01<", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.multiarray\nscalar\n", b"Vlatin1\n",
    b"cnumpy._core.numeric\n_frombuffer\n", b"c__builtin__\nbytes\n", b"G?\xf0\0\0\0\0\0\0", b"I01\n",
])  # fmt: skip


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPCODES, max_size=40))
@example([b"]", b"q\x00", b"h\x00", b"a"])
def test_random_programs_never_surprise(written, opcodes):
    load_or_refuse(written(b"".join(opcodes) + b"."))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_random_bytes_never_surprise(written, content):
    load_or_refuse(written(content))


# files that cannot be opened


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "mnist.pkl.gz").write_bytes(b"N.")
    with pytest.raises(FileError, match=r'minst\.pkl\.gz: no such file; did you mean "mnist\.pkl\.gz"\?'):
        load_pickle(tmp_path / "minst.pkl.gz")


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileError, match=r"no such file; the folder .*nowhere does not exist either; check the path"):
        load_pickle(str(tmp_path / "nowhere" / "mnist.pkl.gz"))


def test_a_folder(tmp_path):
    with pytest.raises(FileError, match="a folder; expected a file; name a file inside it"):
        load_pickle(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(written):
    path = written(b"N.")
    path.chmod(0)
    with pytest.raises(FileError, match=r"cannot be read \(Permission denied\); check that you may read this file"):
        load_pickle(path)


def test_an_ill_formed_path():
    with pytest.raises(FileError, match="cannot be read"):
        load_pickle("a\0b")


def test_reading_imports_no_torch(written):
    path = written(pickle.dumps(np.arange(3), 4))
    code = f"import sys; from onecycle.data.pickles import load_pickle; load_pickle({str(path)!r}); "
    subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=True)
