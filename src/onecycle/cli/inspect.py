"""`onecycle inspect`: what the columns of a file are, and what training would do with them."""

import json
import sys
from typing import Any

from onecycle.cli.layout import WIDTH, print_columns, print_numbers, print_pairs, print_wrapped
from onecycle.cli.plan import model_line, number, plan, split_line, target_line, training_line
from onecycle.cli.settings import TrainSettings
from onecycle.cli.setup import Setup, Source, build_setup, column_names, open_source, shell_quote, suggested_target
from onecycle.core.choices import ColumnKind
from onecycle.core.device import pick_device
from onecycle.errors import pluralize

_EXAMPLES, _LOOKED_AT = 3, 10_000  # values of a column that are shown, and rows in which they are looked for
_MOST_CLASSES = 12  # that get a line
_BAR = 24  # characters of the longest
_LOSSES = {
    "CrossEntropyLoss": "cross-entropy",
    "BCEWithLogitsLoss": "binary cross-entropy",
    "flat_mse_loss": "mean squared error",
}
_NUMPY = {"double": "float64", "float": "float32", "halffloat": "float16"}  # names that more people know


def inspect(settings: TrainSettings, as_json: bool) -> int:
    """Print what `settings`' source holds and what training on it would do; the exit code.

    Without a target a table's columns are all there is to say.
    """
    wanted = settings.data
    source = open_source(wanted)
    columns = _survey(source, dict(wanted.kinds))
    known = source.table is None or wanted.target is not None or bool(suggested_target(source))
    if not as_json and source.table is not None and not known:
        _print_columns(source, columns)
        print(
            f"--target NAME says what is predicted, and then what training would do; "
            f"for example --target {shell_quote(_last_used(columns))}",
            file=sys.stderr,
        )
        return 0
    try:
        setup = build_setup(settings, pick_device("cpu"), source) if known else None
    except Exception:
        if not as_json and source.table is not None:  # what helps to see what is wrong
            _print_columns(source, columns)
        raise
    if setup is not None:
        dropped = column_names(wanted.drop, source.columns) if wanted.drop else ()
        columns = [_as_trained(column, setup, dropped) for column in columns]
    if as_json:
        about = {"source": source.name, "rows": _rows(source, setup), "columns": columns}
        print(json.dumps({**about, "training": plan(setup) if setup is not None else None}, default=str))
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


def _survey(source: Source, kinds: dict[str, ColumnKind]) -> list[dict[str, Any]]:
    """Each column of the whole table."""
    if source.table is None:
        return []
    from onecycle.tables.profile import TableProfiler
    from onecycle.tables.spec import TableSpec

    profiler, found = TableProfiler(source.table.schema, TableSpec((), kinds=kinds)), list[dict[str, Any]]()
    profiler.add(source.table)
    for column in profiler.profiles():
        values = source.table.column(column.name)
        found.append(
            {
                "name": column.name,
                "kind": column.kind,
                "type": str(values.type),
                "missing": column.missing,
                "distinct": column.distinct if column.distinct is not None else _distinct(values),
                "why": column.why,
                "examples": _examples(values),
            }
        )
    return found


def _distinct(values: Any) -> int | None:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    from pyarrow import compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

    pc: Any = compute  # whose functions are made when it is imported
    try:
        return pc.count_distinct(values).as_py()
    except pa.ArrowNotImplementedError:  # lists
        return None


def _examples(values: Any) -> list[str]:
    """The first different values, as text."""
    found: dict[str, None] = {}
    for value in values.slice(0, _LOOKED_AT).drop_null():
        found[str(value.as_py())] = None
        if len(found) == _EXAMPLES:
            break
    return list(found)


def _as_trained(column: dict[str, Any], setup: Setup, dropped: tuple[str, ...]) -> dict[str, Any]:
    """The column as the training rows made it: kind and why may differ from those of all rows."""
    name = column["name"]
    if name in setup.target:
        return {**column, "kind": "target"}
    if name in dropped:
        return {**column, "kind": "dropped", "why": "left out by --drop"}
    for trained in setup.data.columns:
        if trained.name == name:
            return {
                **column,
                "kind": trained.kind,
                "why": trained.why if trained.kind != column["kind"] else column["why"],
            }
    return {**column, "kind": "dropped", "why": "says how the rows are split"}


def _rows(source: Source, setup: Setup | None) -> int:
    if source.table is not None:
        return source.table.num_rows
    return sum(plan(setup)["rows"].values()) if setup is not None else 0


def _print_columns(source: Source, columns: list[dict[str, Any]]) -> None:
    rows, width = pluralize(source.table.num_rows, "row"), pluralize(source.table.num_columns, "column")
    print(f"{source.name}: {rows}, {width}\n")
    head = ["column", "kind", "type", "missing", "distinct", "what"]
    rows = [
        [
            column["name"],
            column["kind"],
            _short_type(column["type"]),
            f"{column['missing']:,}" if column["missing"] else "-",
            "-" if column["distinct"] is None else f"{column['distinct']:,}",
            _what(column),
        ]
        for column in columns
    ]
    print_columns(head, rows, right=(3, 4))


def _what(column: dict[str, Any]) -> str:
    """What is worth knowing of a column: its range, some of its values, or why it is dropped."""
    labels = column["kind"] == "target" and column["type"].startswith(("list", "large_list"))
    if column["kind"] == "dropped" or not (" distinct " in column["why"] or labels):
        return column["why"]
    examples = ", ".join(example if len(example) <= 20 else f"{example[:19]}…" for example in column["examples"])
    more = ", …" if (column["distinct"] or 0) > len(column["examples"]) else ""
    hint = "" if labels else column["why"].partition(", of which")[2] or column["why"].partition("; ")[2]
    return f"{examples}{more}{'; ' + hint if hint else ''}"


def _short_type(name: str) -> str:
    return _NUMPY.get(name, name.partition("<")[0].removeprefix("large_"))


def _print_training(setup: Setup) -> None:
    facts = plan(setup)
    target = facts["target"]
    print_wrapped(f"target: {target_line(target, details=False)}")
    if "quantiles" in target:
        _print_quantiles(target["names"], target["quantiles"])
    elif classes := target.get("labels") or target.get("classes"):
        _print_balance(classes)
    print("\ntraining would")
    pairs = [
        ("split", split_line(facts["rows"]) + f" ({facts['split']})"),
        ("model", model_line(facts)),
        ("loss", f"{_LOSSES.get(facts['loss'], facts['loss'])}; metrics {', '.join(facts['metrics'])}"),
        ("length", training_line(facts)),
    ]
    if setup.note:
        pairs.insert(2, ("", setup.note))
    print_pairs(pairs)


def _print_quantiles(names: list[str], quantiles: list[dict[str, float]]) -> None:
    for shown in (number, "{:.3g}".format):  # fewer digits where the line would be too long
        rows = [
            [name if len(quantiles) > 1 else "", *map(shown, found.values())]
            for name, found in zip(names or [""], quantiles, strict=True)
        ]
        head = ["", *quantiles[0]]
        if 2 + sum(2 + max(len(row[i]) for row in [head, *rows]) for i in range(len(head))) <= WIDTH:
            break
    print_numbers(head, rows)


def _print_balance(classes: list[dict[str, Any]]) -> None:
    ranked = sorted(classes, key=lambda entry: -entry["rows"])
    shown, highest = ranked[:_MOST_CLASSES], max((entry["rows"] for entry in ranked), default=0) or 1
    names = [str(entry["name"]) if len(str(entry["name"])) <= 30 else f"{str(entry['name'])[:29]}…" for entry in shown]
    width, digits = max(map(len, names)), len(f"{highest:,}")
    for name, entry in zip(names, shown, strict=True):
        bar = "#" * max(round(_BAR * entry["rows"] / highest), 1 if entry["rows"] else 0)
        print(f"  {name:{width}}  {entry['rows']:{digits},}  {entry['share']:6.1%}  {bar}".rstrip())
    if len(ranked) > len(shown):
        rest = sum(entry["rows"] for entry in ranked[len(shown) :])
        print(f"  and {len(ranked) - len(shown):,} more, with {rest:,} rows")
