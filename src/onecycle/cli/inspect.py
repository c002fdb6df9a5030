"""`onecycle inspect`: the columns of a file, and what training would do with them."""

import json
import shlex
import sys
from typing import Any

from onecycle.cli.plan import model_line, number, plan, split_line, target_line, training_line
from onecycle.cli.settings import TrainSettings
from onecycle.cli.setup import Setup, SourceContent, build_setup, read_source, split_names, suggested_target
from onecycle.cli.terminal import plain_lines, print_lines, print_table
from onecycle.core.device import pick_device
from onecycle.errors import pluralize

_MAX_EXAMPLES, _SEARCHED_ROWS = 3, 10_000  # example values of a column, and the rows in which they are looked for
_MAX_CLASSES = 12  # that get a line
_MAX_BAR = 24  # characters of the longest bar
_WIDTH = 80  # of the line of quantiles
_STYLES = {"target": "bold green", "dropped": "dim", "number": "cyan", "category": "magenta", "date": "yellow"}
_LOSSES = {
    "CrossEntropyLoss": "cross-entropy",
    "BCEWithLogitsLoss": "binary cross-entropy",
    "flat_mse_loss": "mean squared error",
}
_NUMPY = {"double": "float64", "float": "float32", "halffloat": "float16"}  # names that more people know


def inspect(settings: TrainSettings, as_json: bool) -> int:
    """Print what the source holds and what training on it would do. Return the exit code.

    Without a target only the columns of a table are printed.
    """
    source = read_source(settings)
    columns = _profile(source, settings)
    has_target = source.table is None or bool(settings.table.target) or bool(suggested_target(source))
    if not as_json and source.table is not None and not has_target:
        _print_columns(source, columns)
        print_lines(
            f"--target NAME says what is predicted, and then what training would do; "
            f"for example --target {shlex.quote(_last_used(columns))}",
            file=sys.stderr,
        )
        return 0
    try:
        setup = build_setup(settings, pick_device("cpu"), source) if has_target else None
    except Exception:
        if not as_json and source.table is not None:  # the columns help to see what is wrong
            _print_columns(source, columns)
        raise
    if setup is not None:
        dropped = split_names(settings.table.drop, source.columns)
        columns = [_as_trained(column, setup, dropped) for column in columns]
    if as_json:
        training = plan(setup) if setup is not None else None
        rows = source.table.num_rows if source.table is not None else sum(training["rows"].values()) if training else 0
        result = {"source": source.name, "rows": rows, "columns": columns, "training": training}
        print(json.dumps(result, default=str))
        return 0
    if source.table is not None:
        _print_columns(source, columns)
        print()
    assert setup is not None  # a table without a target has returned
    _print_training(setup)
    return 0


def _last_used(columns: list[dict[str, Any]]) -> str:
    used = [column["name"] for column in columns if column["kind"] != "dropped"]
    return (used or [column["name"] for column in columns])[-1]


def _profile(source: SourceContent, settings: TrainSettings) -> list[dict[str, Any]]:
    """Return what each column of the whole table holds; nothing if there is no table in memory."""
    if source.table is None:
        return []
    from onecycle.tables.profile import TableProfiler
    from onecycle.tables.spec import TableSpec

    profiler = TableProfiler(source.table.schema, TableSpec((), kinds=settings.table.kinds))
    profiler.add(source.table)
    columns: list[dict[str, Any]] = []
    for column in profiler.profiles():
        values = source.table.column(column.name)
        columns.append(
            {
                "name": column.name,
                "kind": column.kind,
                "type": str(values.type),
                "missing": column.missing,
                "distinct": column.distinct if column.distinct is not None else _count_distinct(values),
                "why": column.why,
                "examples": _examples(values),
            }
        )
    return columns


def _count_distinct(values: Any) -> int | None:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    from pyarrow import compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

    pc: Any = compute  # its functions are made when it is imported
    try:
        return pc.count_distinct(values).as_py()
    except pa.ArrowNotImplementedError:  # lists
        return None


def _examples(values: Any) -> list[str]:
    """Return the first distinct values as text."""
    examples: dict[str, None] = {}
    for value in values.slice(0, _SEARCHED_ROWS).drop_null():
        examples[str(value.as_py())] = None
        if len(examples) == _MAX_EXAMPLES:
            break
    return list(examples)


def _as_trained(column: dict[str, Any], setup: Setup, dropped: tuple[str, ...]) -> dict[str, Any]:
    """Return the column as the training rows made it: kind and why may differ from those of all rows."""
    name = column["name"]
    if name in setup.table.targets:
        return {**column, "kind": "target"}
    if name in dropped:
        return {**column, "kind": "dropped", "why": "left out by --drop"}
    for trained in setup.data.columns:
        if trained.name == name:
            why = trained.why if trained.kind != column["kind"] else column["why"]
            return {**column, "kind": trained.kind, "why": why}
    return {**column, "kind": "dropped", "why": "says how the rows are split"}


def _print_columns(source: SourceContent, columns: list[dict[str, Any]]) -> None:
    size = f"{pluralize(source.table.num_rows, 'row')}, {pluralize(source.table.num_columns, 'column')}"
    print_lines(f"{source.name}: {size}", "")
    rows = [
        [
            column["name"],
            column["kind"],
            _short_type(column["type"]),
            f"{column['missing']:,}" if column["missing"] else "-",
            "-" if column["distinct"] is None else f"{column['distinct']:,}",
            _describe(column),
        ]
        for column in columns
    ]
    head = ["column", "kind", "type", "missing", "distinct", "what"]
    print_table(rows, head, right=(3, 4), styles=_STYLES)


def _describe(column: dict[str, Any]) -> str:
    """Return what is worth knowing of a column: its range, some of its values, or why it is dropped."""
    is_labels = column["kind"] == "target" and column["type"].startswith(("list", "large_list"))
    if column["kind"] == "dropped" or not (" distinct " in column["why"] or is_labels):
        return column["why"]
    examples = ", ".join(_shorten(example, 20) for example in column["examples"])
    more = ", …" if (column["distinct"] or 0) > len(column["examples"]) else ""
    hint = "" if is_labels else column["why"].partition(", of which")[2] or column["why"].partition("; ")[2]
    return f"{examples}{more}{'; ' + hint if hint else ''}"


def _short_type(name: str) -> str:
    return _NUMPY.get(name, name.partition("<")[0].removeprefix("large_"))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _print_training(setup: Setup) -> None:
    facts = plan(setup)
    target = facts["target"]
    print_table([[f"target: {target_line(target, details=False)}"]])
    if "quantiles" in target:
        _print_quantiles(target["names"], target["quantiles"])
    elif classes := target.get("labels") or target.get("classes"):
        _print_balance(classes)
    print("\ntraining would")
    rows = [
        ["split", split_line(facts["rows"]) + f" ({facts['split']})"],
        ["model", model_line(facts)],
        ["loss", f"{_LOSSES.get(facts['loss'], facts['loss'])}; metrics {', '.join(facts['metrics'])}"],
        ["length", training_line(facts)],
    ]
    if setup.note:
        rows.insert(2, ["", setup.note])
    print_table(rows, indent=2)


def _print_quantiles(names: list[str], quantiles: list[dict[str, float]]) -> None:
    named = len(names) > 1
    head = [*([""] if named else []), *quantiles[0]]
    rows: list[list[str]] = []
    for formatted in (number, "{:.3g}".format):  # fewer digits if the lines would be too long
        rows = [[*map(formatted, values.values())] for values in quantiles]
        rows = [[name, *row] for name, row in zip(names, rows, strict=True)] if named else rows
        if max(map(len, plain_lines(rows, head, indent=2))) <= _WIDTH:
            break
    print_table(rows, head, right=range(named, len(head)), indent=2)


def _print_balance(classes: list[dict[str, Any]]) -> None:
    """Print the most frequent classes, with a bar for each."""
    ranked = sorted(classes, key=lambda entry: -entry["rows"])
    highest = max(ranked[0]["rows"], 1)
    rows: list[list[str]] = []
    for entry in ranked[:_MAX_CLASSES]:
        bar = "#" * max(round(_MAX_BAR * entry["rows"] / highest), min(entry["rows"], 1))
        rows.append([_shorten(str(entry["name"]), 30), f"{entry['rows']:,}", f"{entry['share']:.1%}", bar])
    print_table(rows, right=(1, 2), indent=2)
    if rest := ranked[_MAX_CLASSES:]:
        print(f"  and {len(rest):,} more, with {sum(entry['rows'] for entry in rest):,} rows")
