"""Feed every Arrow and NumPy type to every way in: what arrives is what pyarrow's to_pylist says, or a DataError.

    python tests/durability/every_type.py [--every N] [--only TEXT] [--show]

Each type comes with nulls, sliced, in chunks (one of them empty), as a dictionary (with nulls, repeated and unused
values in it), run-end encoded, and as items of lists, list views, fixed-size lists, maps and structs. What is compared
is what a model gets: numbers, days, texts of categories, labels. A DataError names the column and its type. The cases
run in a process beside this one, so that a crash costs one case.
"""

import argparse
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Case = tuple[str, Callable[[Path], str]]  # its name, and what runs it in a folder and says how it ended
SAME, REFUSED, UNSUPPORTED = "same", "refused", "not written by its library"
PATIENCE = 120  # seconds
FIRST_DAY, LAST_DAY = -719_162, 2_932_896  # to which dates are clipped: 0001-01-01 and 9999-12-31


def main() -> int:
    """Print what was found; 1 if a value differed, an error was no DataError, or a process crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every N-th case")
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument("--show", action="store_true", help="print each case")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    chosen = [name for name, _ in cases() if options.only in name][:: options.every]
    outcomes, wrong = Counter[str](), list[str]()
    for name, outcome in run(chosen):
        outcomes[outcome if outcome in (SAME, REFUSED, UNSUPPORTED) else "WRONG"] += 1
        if outcome not in (SAME, REFUSED, UNSUPPORTED):
            wrong.append(f"{name}: {outcome}")
        if options.show:
            print(f"{name}: {outcome}")
    print(*wrong, sep="\n")
    print(f"{len(chosen):,} cases: " + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()))
    return int(bool(wrong) or sum(outcomes.values()) != len(chosen) or not outcomes[SAME])


def run(names: list[str]) -> Iterator[tuple[str, str]]:
    """Run the cases in processes of their own, a new one after each crash, and yield how each ended."""
    left = list(names)
    while left:
        words = [sys.executable, "-W", "ignore", __file__, "--serve"]
        done = subprocess.run(
            words, input="\n".join(left), capture_output=True, text=True, check=False, timeout=PATIENCE + len(left)
        )
        results = done.stdout.splitlines()
        yield from zip(left, results, strict=False)
        left = left[len(results) :]
        if left and "polars" in left[0] and "panic" in done.stderr:  # converting a type that polars lacks
            yield left[0], UNSUPPORTED
            left = left[1:]
        elif left:
            yield left[0], f"the process ended with {done.returncode}: {done.stderr[-300:]}"
            left = left[1:]


def serve() -> int:
    """Read names of cases from stdin, run each, and print a line about it."""
    known = dict(cases())
    with TemporaryDirectory() as folder:
        for line in sys.stdin:
            try:
                outcome = known[line.rstrip("\n")](Path(folder))
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            print(outcome.replace("\n", " ")[:500], flush=True)
    return 0


def cases() -> Iterator[Case]:
    """All of them."""
    for type_name, (data_type, values) in arrow_types().items():
        for form, build in FORMS.items():
            for way, read in WAYS.items():
                yield f"{type_name}, {form}, {way}", partial(feed, build, data_type, values, read)
    yield from numpy_cases()


# --- what is fed ------------------------------------------------------------------------------------------------------


def arrow_types() -> dict[str, tuple[Any, list[Any]]]:
    """Every type of Arrow, with different values; those of dates, times and durations are counts of their unit."""
    import pyarrow as pa

    whole, text = [3, 1, 2, 1, 0, 3, 2], ["b", "a", "wörd", "a", "", "b", "c, d"]
    names = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
    types: dict[str, tuple[Any, list[Any]]] = {name: (getattr(pa, name)(), whole) for name in names}
    types["float64 with NaN"] = (pa.float64(), [0.5, float("nan"), -1.5, 1e300, 0.1, 7.0, -0.0])
    types["int64, large"] = (pa.int64(), [2**62, -(2**62), 5, 4, 3, 2, 1])
    types["uint64, large"] = (pa.uint64(), [2**64 - 1, 2**63, 5, 4, 3, 2, 1])
    for bits in (32, 64, 128, 256):
        decimals = [Decimal(number).scaleb(-2) for number in (350, -125, 201, 7, 0, 99, 125)]
        types[f"decimal{bits}"] = (getattr(pa, f"decimal{bits}")(9, 2), decimals)
    types |= {
        "null": (pa.null(), [None] * 7),
        "bool": (pa.bool_(), [True, False, False, True, True, False, True]),
        "string": (pa.string(), text),
        "large_string": (pa.large_string(), text),
        "string_view": (pa.string_view(), [*text[:6], "longer than the twelve bytes of a view"]),
        "binary": (pa.binary(), [value.encode() for value in text]),
        "large_binary": (pa.large_binary(), [value.encode() for value in text]),
        "binary_view": (pa.binary_view(), [value.encode() * 9 for value in text]),
        "fixed_size_binary": (pa.binary(2), [b"ab", b"cd", b"ab", b"ef", b"gh", b"cd", b"ab"]),
        "fixed_size_binary of 0": (pa.binary(0), [b""] * 7),
        "bytes that are no text": (pa.binary(), [b"\xff", b"a", b"b", b"a", b"\x00", b"b", b"c"]),
        "date32": (pa.date32(), [19_000, 18_000, -5, 0, 1, 19_000, 20_000]),
        "date64": (pa.date64(), [86_400_000 * day for day in (19_000, 18_000, -5, 0, 1, 19_000, 20_000)]),
        "interval": (pa.month_day_nano_interval(), [(1, 2, 3), (0, 0, 1), (5, 0, 0), (1, 2, 3)] + [(0, 1, 0)] * 3),
        "bool8": (pa.bool8(), [True, False, False, True, True, False, True]),
        "uuid": (pa.uuid(), [bytes([65 + i] * 16) for i in (0, 1, 0, 2, 3, 1, 0)]),
        "json": (pa.json_(), ["1", "[2]", "null", "1", "{}", "[2]", "3"]),
        "opaque": (pa.opaque(pa.int32(), "thing", "vendor"), whole),
        "fixed_shape_tensor": (pa.fixed_shape_tensor(pa.int32(), [2]), [[i, i + 1] for i in whole]),
        "struct without fields": (pa.struct([]), [{}] * 7),
    }
    for unit in ("s", "ms", "us", "ns"):
        moments = [1_700_000_001, 1_600_000_000, -5, 0, 86_399, 1_700_000_001, 1_650_000_000]
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
        ticks = [moment * per_second + (per_second > 1) for moment in moments]
        for zone in (None, "UTC", "Europe/Berlin", "+05:30"):
            types[f"timestamp[{unit}] {zone or ''}".strip()] = (pa.timestamp(unit, zone), ticks)
        types[f"duration[{unit}]"] = (pa.duration(unit), ticks)
        time = pa.time32 if unit in ("s", "ms") else pa.time64
        types[f"time[{unit}]"] = (time(unit), [abs(tick) % (86_400 * per_second) for tick in ticks])
    return types


def array_of(data_type: Any, values: list[Any]) -> Any:
    """Build an array, of types that pyarrow builds none of from Python too."""
    import pyarrow as pa

    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, array_of(data_type.storage_type, values))
    if pa.types.is_temporal(data_type) and not pa.types.is_interval(data_type):
        count = pa.int32() if data_type.bit_width == 32 else pa.int64()
        return pa.array(values, count).view(data_type)
    return pa.array(values, data_type)


def with_nulls(data_type: Any, values: list[Any]) -> Any:
    return array_of(data_type, [values[0], None, *values[1:4], None, *values[4:]])


def chunked(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    array = with_nulls(data_type, values)
    return pa.chunked_array([array.slice(0, 2), array.slice(2, 0), array.slice(2, 4), array.slice(6)], array.type)


def dictionary(data_type: Any, values: list[Any], index: str = "int8") -> Any:
    import pyarrow as pa

    codes = pa.array([4, 0, 1, None, 5, 1, 2, 0, 3, 3], getattr(pa, index)())
    return pa.DictionaryArray.from_arrays(codes, array_of(data_type, [*values[:5], None, values[6]])).slice(1)


def dictionaries(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    chunks = [dictionary(data_type, values), dictionary(data_type, values[::-1]).slice(2)]
    return pa.chunked_array([*chunks, chunks[0].slice(3, 0)])


def runs(data_type: Any, values: list[Any], ends: str = "int32") -> Any:
    import pyarrow as pa

    array = with_nulls(data_type, values).slice(1)
    run_ends = pa.array(np.cumsum(np.arange(len(array)) % 3 + 1), getattr(pa, ends)())
    return pa.RunEndEncodedArray.from_arrays(run_ends, array).slice(2)


def runs_in_chunks(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    array = runs(data_type, values, "int16")
    return pa.chunked_array([array.slice(0, 3), array.slice(3, 0), array.slice(3)])


def lists(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    offsets = pa.array([0, 2, None, 2, 5, 7], pa.int32())
    return pa.ListArray.from_arrays(offsets, array_of(data_type, values)).slice(1)


def list_views(data_type: Any, values: list[Any], large: bool = False) -> Any:
    """Views out of order that overlap, the last of which ends where the values do."""
    import pyarrow as pa

    number, build = (pa.int64(), pa.LargeListViewArray) if large else (pa.int32(), pa.ListViewArray)
    offsets, sizes = pa.array([4, 0, 1, 3, 5], number), pa.array([1, 2, 0, 2, 2], number)
    mask = pa.array([False, False, False, True, False])
    return build.from_arrays(offsets, sizes, array_of(data_type, values), mask=mask).slice(1)


def fixed_lists(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    mask = pa.array([False, True, False])
    return pa.FixedSizeListArray.from_arrays(array_of(data_type, values[:6]), 2, mask=mask).slice(1)


def structs(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.StructArray.from_arrays([array_of(data_type, values)], ["part"])


def maps(data_type: Any, values: list[Any]) -> Any:
    import pyarrow as pa

    return pa.MapArray.from_arrays([0, 2, 4, 7], pa.array(list("abcdefg")), array_of(data_type, values))


def union(data_type: Any, values: list[Any], dense: bool) -> Any:
    import pyarrow as pa

    array, kinds = array_of(data_type, values), pa.array([0] * len(values), pa.int8())
    if dense:
        return pa.UnionArray.from_dense(kinds, pa.array(range(len(values)), pa.int32()), [array])
    return pa.UnionArray.from_sparse(kinds, [array])


FORMS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "plain": array_of,
    "with nulls": with_nulls,
    "sliced": lambda data_type, values: with_nulls(data_type, values).slice(2, 6),
    "no rows": lambda data_type, values: array_of(data_type, values).slice(1, 0),
    "all null": lambda data_type, values: array_of(data_type, [None] * 3),
    "in chunks": chunked,
    "a dictionary": dictionary,
    "a dictionary with uint64": partial(dictionary, index="uint64"),
    "dictionaries in chunks": dictionaries,
    "runs": runs,
    "runs in chunks": runs_in_chunks,
    "runs of a dictionary": lambda data_type, values: _run(dictionary(data_type, values)),
    "lists": lists,
    "list views": list_views,
    "large list views": partial(list_views, large=True),
    "fixed-size lists": fixed_lists,
    "structs": structs,
    "maps": maps,
    "a dense union": partial(union, dense=True),
    "a sparse union": partial(union, dense=False),
}


def _run(array: Any) -> Any:
    import pyarrow as pa

    return pa.RunEndEncodedArray.from_arrays(pa.array(range(2, 2 * len(array) + 1, 2), pa.int32()), array).slice(3)


# --- the ways in ------------------------------------------------------------------------------------------------------


class ArrowStream:
    """An object with nothing but the Arrow stream protocol."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def _write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, row_group_size=4)


def _write_arrow(table: Any, path: Path, stream: bool = False, compression: str | None = None) -> None:
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=not stream)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema, options=options) as writer:
        writer.write_table(table)


def _file(suffix: str, write: Callable[[Any, Path], None], stream: bool) -> Callable[[Any, Path], Any]:
    def read(table: Any, folder: Path) -> Any:
        import pyarrow as pa

        from onecycle.tables.read import read_table, stream_table

        path = folder / f"rows{suffix}"
        write(table, path)
        return lambda: pa.Table.from_batches([*stream_table(path, 3)]) if stream else read_table(path)

    return read


def _memory(convert: Callable[[Any], Any]) -> Callable[[Any, Path], Any]:
    def read(table: Any, folder: Path) -> Any:
        from onecycle.tables.adapters import open_table

        source = convert(table)
        return lambda: open_table(source)

    return read


def _as_pandas(table: Any) -> Any:
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)


def _as_polars(table: Any) -> Any:
    import polars as pl

    return pl.from_arrow(table)


def _as_batch(table: Any) -> Any:
    (batch,) = table.to_batches()
    return batch


_FILES = {
    "Parquet": (".parquet", _write_parquet),
    "Arrow file": (".arrow", _write_arrow),
    "Arrow stream": (".ipc", partial(_write_arrow, stream=True)),
    "Feather": (".feather", partial(_write_arrow, compression="lz4")),
}
WAYS: dict[str, Callable[[Any, Path], Any]] = {
    **{name: _file(suffix, write, stream=False) for name, (suffix, write) in _FILES.items()},
    **{f"{name}, streamed": _file(suffix, write, stream=True) for name, (suffix, write) in _FILES.items()},
    "Table": _memory(lambda table: table),
    "RecordBatch": _memory(_as_batch),
    "RecordBatchReader": _memory(lambda table: table.to_reader()),
    "PyCapsule": _memory(ArrowStream),
    "dict of columns": _memory(lambda table: dict(zip(table.column_names, table.columns, strict=True))),
    "pandas": _memory(_as_pandas),
    "polars": _memory(_as_polars),
}


# --- what arrives -----------------------------------------------------------------------------------------------------


def feed(build: Callable[[Any, list[Any]], Any], data_type: Any, values: list[Any], way: Any, folder: Path) -> str:
    """Feed a column by one way in, and compare what a model would get with pyarrow's own scalars."""
    import pyarrow as pa

    from onecycle.errors import DataError, FileError

    try:
        array = build(data_type, values)
        column = array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])
        column.validate(full=True)
        table = pa.table({"v": column, "row": pa.array(range(len(column)))})
        read = way(table, folder)
    except BaseException as error:  # polars panics
        if isinstance(error, KeyboardInterrupt):
            raise
        return UNSUPPORTED
    try:
        column = read()["v"]
        column.validate(full=True)
        arrived = meaning(column)
    except FileError as error:
        return UNSUPPORTED if "storage type" in str(error) else str(error)  # pyarrow cannot read what it wrote
    except DataError as error:
        named = '"v"' in str(error) and (build is not array_of or _names_type(str(error), table["v"].type))
        return REFUSED if named or not len(table) else f"the error names no column: {error}"
    expected = [oracle(scalar) for chunk in table["v"].chunks for scalar in scalars(chunk)]
    same = len(arrived) == len(expected) and all(map(_same, arrived, expected))
    return SAME if same else f"{arrived} instead of {expected}"


def _names_type(message: str, data_type: Any) -> bool:
    return "bytes" in message or str(data_type).partition("[")[0] in message


def _same(arrived: Any, expected: Any) -> bool:
    if isinstance(arrived, list) and isinstance(expected, list):
        return len(arrived) == len(expected) and all(map(_same, arrived, expected))
    if isinstance(arrived, float) and isinstance(expected, float):
        return arrived == expected or abs(arrived - expected) <= 1e-9 * max(abs(expected), 0.1)
    return type(arrived) is type(expected) and arrived == expected


def scalars(array: Any) -> list[Any]:
    """Return the scalars of an array; of runs, whose own are rounded, by the definition of the format."""
    import pyarrow as pa

    if not pa.types.is_run_end_encoded(array.type):
        return list(array)
    ends = array.run_ends.to_pylist()
    return [array.values[bisect_right(ends, array.offset + i)] for i in range(len(array))]


def oracle(scalar: Any) -> Any:
    """Return what pyarrow's scalar is to a model: a number, a text, days since 1970, or a list of them."""
    import pyarrow as pa

    while isinstance(scalar, pa.ExtensionScalar | pa.DictionaryScalar):
        scalar = scalar.value
    if scalar is None or not scalar.is_valid:
        return None
    kind, value = scalar.type, scalar.as_py() if not pa.types.is_temporal(scalar.type) else scalar.value
    if isinstance(scalar, pa.ListScalar):
        return [oracle(item) for item in scalar.values]
    if pa.types.is_boolean(kind):
        return "true" if value else "false"
    if pa.types.is_date(kind):
        return value / (86_400_000 if pa.types.is_date64(kind) else 1)
    if pa.types.is_temporal(kind):
        seconds = value / {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        return seconds / 86_400 if pa.types.is_timestamp(kind) else seconds
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return value if value.strip() else None
    return float(value) if value == value else None


def meaning(column: Any) -> list[Any]:
    """Return what the library makes of a column, as `oracle` has it."""
    from onecycle.errors import DataError
    from onecycle.tables.dates import as_days
    from onecycle.tables.target_stats import labels_of
    from onecycle.tables.values import as_numbers, dictionary_codes, is_list_type, value_kind, value_texts

    kind = value_kind(column.type)
    if kind in ("number", "nothing"):
        x, missing = as_numbers(column, "v")
        return [None if missing is not None and missing[i] else float(x[i]) for i in range(len(x))]
    if kind == "date":
        days, seconds, missing = as_days(column, "v", 0, lenient=False)
        return [None if missing is not None and missing[i] else days[i] + seconds[i] / 86_400 for i in range(len(days))]
    if kind in ("text", "bool"):
        found = list[Any]()
        for values, places in dictionary_codes(column):
            texts = [*value_texts(values).to_pylist(), None]
            found += [texts[place] for place in places]
        return found
    if not is_list_type(column.type):
        raise DataError(f'column "v" holds {column.type}, which is no feature and no target')
    items = list[Any]()  # lists: the rows of the labels
    for row in column.is_null().to_pylist():
        items.append(None if row else [])
    labels, rows = labels_of(column, "v", 0)
    for item, row in zip(meaning(labels), rows.tolist(), strict=True):
        items[row].append(item)
    return items


# --- NumPy ------------------------------------------------------------------------------------------------------------


def numpy_arrays() -> dict[str, Any]:
    """Every dtype of NumPy with different values, and arrays whose memory is laid out in other ways."""
    whole = [3, 1, 2, 1, 0, 3, 2]
    arrays: dict[str, Any] = {
        np.dtype(code).name: np.array(whole, code)
        for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
    }
    arrays |= {
        f"{code}, other byte order": np.array(whole, code) for code in (">i2", ">i8", ">u4", ">f2", ">f4", ">f8")
    }
    arrays |= {
        "complex128": np.array(whole, complex),
        "uint64 beyond int64": np.array([2**64 - 1, 1, 2**63, 3], np.uint64),
        "longdouble beyond float64": np.array([np.longdouble("1e4000"), 1, 2, 3], np.longdouble),
        "with NaN": np.array([1.5, np.nan, 2.5, 0.5]),
        "str": np.array(["b", "a", "wörd", "", "a"]),
        "bytes": np.array([b"b", b"a", b"word", b"", b"a"]),
        "bytes that are no text": np.array([b"\xff", b"a", b"b", b"a"]),
        "str, other byte order": np.array(["b", "a", "wörd", "a"]).astype(np.dtype("U4").newbyteorder()),
        "StringDType": np.array(["b", "a", "longer than fifteen bytes of text", "a"], np.dtypes.StringDType()),
        "StringDType with missing": np.array(["b", None, "c", "a"], np.dtypes.StringDType(na_object=None)),
        "void": np.array([b"ab", b"cd", b"ab", b"ef"], "V2"),
        "structured": np.array([(1, 2.0), (3, 4.0), (5, 6.0)], [("a", "i4"), ("b", "f8")]),
        "objects": np.array([1, None, 2, 3], object),
        "objects of texts": np.array(["a", None, "b", "a"], object),
        "objects of all kinds": np.array([1, "a", None, 2.5], object),
        "objects of sets": np.array([{1}, {2}, {3}], object),
        "reversed": np.arange(7.0)[::-1],
        "every second": np.arange(14)[::2],
        "a column of rows": np.arange(21.0).reshape(7, 3)[:, 1],
        "one number": np.broadcast_to(np.float32(1.5), 7),
        "not aligned": np.frombuffer(bytes(1) + np.arange(7.0).tobytes(), np.uint8)[1:].view(np.float64),
        "read only": _frozen(np.arange(7.0)),
        "masked": np.ma.array(np.arange(7.0), mask=[0, 1, 0, 0, 1, 0, 0]),
        "masked integers": np.ma.array(np.arange(7), mask=[0, 1, 0, 0, 1, 0, 0]),
        "masked texts": np.ma.array(np.array(list("abcabca")), mask=[0, 1, 0, 0, 1, 0, 0]),
        "masked, other byte order": np.ma.array(np.arange(7, dtype=">f8"), mask=[0, 1, 0, 0, 1, 0, 0]),
        "masked nothing": np.ma.array(np.arange(7.0)),
        "no rows": np.empty(0),
    }
    for unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "25s", "7D", "10ms", "2Y"):
        arrays[f"datetime64[{unit}]"] = np.array([3, 1, "NaT", 0, 7, -2], f"M8[{unit}]")
        arrays[f"timedelta64[{unit}]"] = np.array([3, 1, "NaT", 0, 7, -2], f"m8[{unit}]")
        arrays[f"datetime64[{unit}], far"] = np.array([2**62, 1, -(2**61)]).view(f"M8[{unit}]")
        arrays[f"timedelta64[{unit}], far"] = np.array([2**62, 1, -(2**61)]).view(f"m8[{unit}]")
    arrays["datetime64[s], other byte order"] = np.array([3, 1, "NaT", 0], ">M8[s]")
    arrays["datetime64 without unit"] = np.array(["NaT"] * 3, "M8")
    arrays["timedelta64 without unit"] = np.array([1, 2, 3], "m8")
    return arrays


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


def numpy_cases() -> Iterator[Case]:
    for name, array in numpy_arrays().items():
        for way, read in NUMPY_WAYS.items():
            if name.startswith("masked") and way.startswith("npz"):
                continue  # NumPy saves no masks
            if name.startswith("StringDType") and way == "structured rows":
                continue  # NumPy has no such fields
            yield f"numpy {name}, {way}", partial(feed_numpy, array, read)


def _column(array: Any, folder: Path) -> Any:
    from onecycle.tables.adapters import as_table

    table = as_table({"v": array})
    return meaning(table["v"])


def _rows(array: Any, folder: Path) -> Any:
    from onecycle.tables.adapters import as_table

    rows = (
        np.ma.empty(len(array), [("v", array.dtype)])
        if np.ma.isMaskedArray(array)
        else np.empty(len(array), [("v", array.dtype)])
    )
    rows["v"] = array
    return meaning(as_table(rows)["v"])


def _saved(array: Any, folder: Path, stream: bool = False) -> Any:
    from onecycle.data.sources import open_source
    from onecycle.tables.cache.numpy_files import stream_arrays

    np.savez(folder / "a.npz", v=array)
    if not stream:
        return meaning(open_source(folder / "a.npz")["v"])
    return [value for chunk in stream_arrays(folder / "a.npz", 3) for value in meaning(chunk.table["v"])]


def _inputs(array: Any, folder: Path) -> Any:
    """As x of DataBunch.create."""
    from onecycle.data.bunch import DataBunch

    y = np.arange(len(array)) % 2
    data = DataBunch.create((array, y), (array, y), bs=len(array))
    return [float(value) for value in data.train_ds.tensors[0]]


def _pair(array: Any, folder: Path) -> Any:
    """As a column of the x of a pair, (n, 2)."""
    from onecycle.data.sources import open_source

    stack = np.ma.stack if np.ma.isMaskedArray(array) else np.stack
    table = open_source((stack([array, array], 1), np.arange(len(array))))
    return (
        [float(x == "true") if isinstance(x, str) else x for x in meaning(table["x1"])]
        if hasattr(table, "column_names")
        else [float(row[1]) for row in table.train[0]]
    )


def _target(array: Any, folder: Path) -> Any:
    """As the y of a pair."""
    from onecycle.data.sources import open_source

    return meaning(open_source((np.zeros((len(array), 2)), array))["y"])


NUMPY_WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "dict of columns": _column,
    "structured rows": _rows,
    "npz": _saved,
    "npz, streamed": partial(_saved, stream=True),
    "DataBunch.create": _inputs,
    "a pair's x": _pair,
    "a pair's y": _target,
}


def feed_numpy(array: Any, way: Callable[[Any, Path], Any], folder: Path) -> str:
    """Feed an array by one way in, and compare what a model would get with the array's own items."""
    from onecycle.errors import OneCycleError

    try:
        arrived = way(array, folder)
    except (OneCycleError, ValueError) as error:
        if isinstance(error, OneCycleError) or way is NUMPY_WAYS["npz, streamed"]:  # these are read whole
            return REFUSED
        raise
    if array.dtype.kind in "SU" or array.dtype.kind == "T":
        expected: list[Any] = [item.decode() if isinstance(item, bytes) else item for item in array.tolist()]
        expected = [item or None for item in expected]
    elif array.dtype.kind in "mM":
        expected = [_seconds(int(tick), array.dtype) for tick in array.astype(np.int64).tolist()]
    elif array.dtype.kind == "O":
        expected = [float(item) if isinstance(item, int) else item for item in array.tolist()]
        expected = [[*map(float, item)] if isinstance(item, set) else item for item in expected]
    else:
        expected = [None if item is None or item != item else float(item) for item in array.tolist()]
        precise = way is not _inputs and way is not _pair
        expected = [x if x is None or precise else float(np.float32(x)) for x in expected]
        expected = [{0: "false", 1: "true"}[x] for x in expected] if array.dtype.kind == "b" and precise else expected
        if not precise:
            arrived = [float(np.float32(x)) for x in arrived]
    same = len(arrived) == len(expected) and all(map(_same, arrived, expected))
    return SAME if same else f"{arrived} instead of {expected}"


def _seconds(tick: int, dtype: Any) -> float | None:
    """Return the seconds of a duration, or the days since 1970 of a moment."""
    if tick == -(2**63):
        return None
    (unit, step), date = np.datetime_data(dtype), dtype.kind == "M"
    if unit in ("Y", "M"):
        month = tick * step * (12 if unit == "Y" else 1)
        year, month = 1970 + month // 12, month % 12
        days = 365 * (year - 1970) + (year - 1969) // 4 - (year - 1901) // 100 + (year - 1601) // 400
        before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month]
        leap = month > 1 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return float(min(max(days + before + leap, FIRST_DAY), LAST_DAY)) if date else None
    powers = {"s": 0, "ms": 3, "us": 6, "ns": 9, "ps": 12, "fs": 15, "as": 18}
    lengths = {"W": 604_800, "D": 86_400, "h": 3_600, "m": 60}
    seconds = Fraction(tick * step * lengths.get(unit, 1), 10 ** powers.get(unit, 0))
    if not date:
        return float(seconds)
    days, rest = divmod(seconds, 86_400)
    return float(min(max(days, FIRST_DAY), LAST_DAY) + rest / 86_400)


if __name__ == "__main__":
    sys.exit(main())
