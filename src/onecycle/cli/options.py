"""The options of the command line: the name, type, default and help of each are declared once.

typer converts paths and flags. The parsers below cover what it cannot say ("auto" or a number, a size such as 28x32),
and word the errors of all values alike, whatever typer's version: `--bs is 0; expected a whole number of ...`.
"""

import inspect
import math
import re
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import typer

from onecycle.cli.settings import DATASETS, ImageSize, ModelChoice, ModelKind, TrainSettings, check_source
from onecycle.core.choices import ColumnKind, EngineName, Precision, Task
from onecycle.errors import SettingError, did_you_mean
from onecycle.tables.spec import SPLIT_FORMS, SPLIT_METHODS, SPLIT_SYNTAX, TableSpec, parse_split

TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", ".arrow", ".feather")
_MAX_WIDTH = 1_000_000
_SIZES = f"expected sizes from 1 to {_MAX_WIDTH:,}, separated by commas: 256,128"
_T = TypeVar("_T")


class BadValueError(typer.BadParameter):
    """An option's value that cannot be used. The message begins with the value; the option's name comes before it."""


def choice(literal: Any) -> Callable[[str], Any]:
    """Return a parser for one of the values of a Literal type."""
    values: tuple[str, ...] = get_args(literal)

    def parse(text: str) -> str:
        if text not in values:
            expected = f"{', '.join(values[:-1])} or {values[-1]}"
            raise BadValueError(f"{text}; expected {expected}{did_you_mean(text, values)}")
        return text

    return parse


def whole(least: int, alternative: str = "") -> Callable[[str], int]:
    """Return a parser for a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value < 2**63:
            raise BadValueError(f"{text}; expected a whole number of at least {least}{alternative}")
        return value

    return parse


def or_auto(parse: Callable[[str], _T]) -> Callable[[str], _T | None]:
    """Return a parser that turns "auto" into None, and leaves anything else to `parse`."""
    return lambda text: None if text == "auto" else parse(text)


def peak_lr(text: str) -> float:
    """Parse a learning rate."""
    return _finite(text, "a number above 0, or auto", lambda value: value > 0)


def weight_decay(text: str) -> float:
    """Parse a weight decay."""
    return _finite(text, "a number of at least 0", lambda value: value >= 0)


def fraction_or_count(text: str) -> float:
    """Parse a fraction of the rows, or their number, which is returned as an int."""
    expected = "a share between 0 and 1, or a whole number of rows"
    try:
        count = int(text)
    except ValueError:
        return _finite(text, expected, lambda value: 0 < value < 1)
    if count < 1:
        raise BadValueError(f"{text}; expected {expected}")
    return count


def _finite(text: str, expected: str, allowed: Callable[[float], bool]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise BadValueError(f"{text}; expected {expected}")
    return value


def column_names(text: str) -> str:
    """Check names of columns separated by commas; they are split when the table's columns are known."""
    if not all(name.strip() for name in text.split(",")):
        raise BadValueError(f'"{text}"; expected names of columns, separated by commas')
    return text


def split_rule(text: str) -> str:
    """Check how the validation rows are chosen, see `tables.split.split_rows`."""
    try:
        parse_split(text)
    except SettingError as error:
        method = text.partition(":")[0]
        hint = "" if method in SPLIT_METHODS else did_you_mean(method, SPLIT_METHODS)
        raise BadValueError(f"{text}; expected one of {', '.join(SPLIT_FORMS)}{hint}") from error
    return text


def image_size(text: str) -> ImageSize:
    """Parse the side of a square, or HEIGHTxWIDTH."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    sides = [int(side) for side in match.groups() if side] if match else [0]
    if 0 in sides:
        raise BadValueError(f"{text}; expected a side in pixels, or HEIGHTxWIDTH: 28 or 28x32")
    return ImageSize(sides[0], sides[-1])


def model_choice(text: str) -> ModelChoice:
    """Parse a kind of model, with the widths of its hidden layers after a colon."""
    kind, colon, widths = text.partition(":")
    if kind not in get_args(ModelKind) or (kind == "auto" and colon):
        hint = did_you_mean(kind, get_args(ModelKind))
        raise BadValueError(f"{text}; expected auto, mlp:256,128 or tabular:256,128{hint}")
    return ModelChoice(cast(ModelKind, kind), _widths(widths, text) if colon else None)


def hidden_layers(text: str) -> ModelChoice:
    """Parse the widths of an MLP's hidden layers."""
    return ModelChoice("mlp", _widths(text, text))


def _widths(widths: str, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in widths.split(",")) if widths else ()
    except ValueError:
        sizes = (0,)
    if any(not 1 <= size <= _MAX_WIDTH for size in sizes):
        raise BadValueError(f"{text}; {_SIZES}")
    return sizes


def plot_file(text: str) -> Path:
    """Parse the name of a PNG file. A folder is refused later, before it is written to."""
    path = Path(text)
    if path.suffix.lower() != ".png" and not path.is_dir():
        raise BadValueError(f"{text}; expected a name that ends in .png: {path.with_suffix('.png')}")
    return path


def table_file(text: str) -> Path:
    """Parse the name of a table that `predict` can write. A folder is refused later, before it is written to."""
    path = Path(text)
    if path.suffix.lower() not in TABLE_SUFFIXES and not path.is_dir():
        hint = did_you_mean(path.suffix, TABLE_SUFFIXES)
        raise BadValueError(f"{text}; expected a name that ends in {', '.join(TABLE_SUFFIXES)}{hint}")
    return path


def option(
    metavar: str, description: str, *names: str, parser: Callable[[str], Any] | None = None, auto: bool = False
) -> Any:
    """Declare an option; `auto` says that its default, None, means auto."""
    return typer.Option(*names, metavar=metavar, help=description, parser=parser, show_default="auto" if auto else True)


def count_or_auto(description: str, least: int = 1) -> Any:
    """Declare an option that takes a whole number of at least `least`, or auto, which is None."""
    return option("N|auto", description, parser=or_auto(whole(least, ", or auto")), auto=True)


def choice_option(literal: Any, description: str) -> Any:
    """Declare an option that takes one of the values of a Literal type."""
    values: tuple[str, ...] = get_args(literal)

    def complete(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return typer.Option(metavar="|".join(values), help=description, parser=choice(literal), autocompletion=complete)


Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `train` wrote.", show_default=False)]
Device = Annotated[
    str | None, option("NAME", "cpu, cuda, cuda:N or mps; else ONECYCLE_DEVICE, else the fastest available.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout instead.")]
Table = Annotated[
    Path | None,
    option(
        "FILE",
        f"Write a table: {', '.join(TABLE_SUFFIXES[:-1])} or {TABLE_SUFFIXES[-1]}.",
        "-o",
        "--out",
        parser=table_file,
    ),
]
Plot = Annotated[Path | None, option("FILE.png", "Where to draw the curve.", parser=plot_file)]


def train_settings(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="mnist, or the path of a file or folder.", show_default=False)
    ],
    target: Annotated[
        str | None, option("NAME,...", "The columns to predict; a table needs it.", parser=column_names)
    ] = None,
    task: Annotated[Task | None, choice_option(Task, "What is predicted, if the guess is wrong.")] = None,
    split: Annotated[
        str,
        option("RULE", f"{SPLIT_SYNTAX}.", parser=split_rule),
    ] = "auto",
    valid: Annotated[
        float | None,
        option("SHARE", "Share (or number) of the rows that validate; by default 0.2.", parser=fraction_or_count),
    ] = None,
    drop: Annotated[str | None, option("NAME,...", "Columns to leave out.", parser=column_names)] = None,
    kinds: Annotated[
        list[str] | None,
        option("NAME=KIND", "What a column is: number, category, date or dropped. Can be repeated.", "--kind"),
    ] = None,
    image_size: Annotated[
        ImageSize | None, option("N|HxW", "Scale the images of a folder to this size.", parser=image_size)
    ] = None,
    memory_limit: Annotated[
        str | None,
        option("SIZE", 'Prepare larger tables than this ("2 GB") on disk; by default half of the free memory.'),
    ] = None,
    epochs: Annotated[
        int | None,
        count_or_auto("Epochs of the one cycle; auto is 1 for mnist, else by size.", least=0),
    ] = None,
    lr: Annotated[
        float | None,
        option("NUMBER|auto", "Peak learning rate; auto takes the finder's.", parser=or_auto(peak_lr), auto=True),
    ] = None,
    bs: Annotated[
        int | None,
        count_or_auto("Batch size; auto is 64 for mnist, else by size."),
    ] = None,
    model: Annotated[
        ModelChoice | None,
        option("MODEL", "auto, or mlp:256,128 or tabular:256,128 (hidden layers).", parser=model_choice, auto=True),
    ] = None,
    hidden: Annotated[
        ModelChoice | None,
        option("N,N,...", "Sizes of the hidden layers, for mnist; by default 50.", parser=hidden_layers),
    ] = None,
    wd: Annotated[float, option("NUMBER", "Weight decay.", parser=weight_decay)] = 1e-2,
    precision: Annotated[Precision, choice_option(Precision, "Number format of the forward pass.")] = "fp32",
    engine: Annotated[EngineName, choice_option(EngineName, "What runs the steps.")] = "auto",
    threads: Annotated[
        int | None,
        count_or_auto("CPU threads; auto takes as many as the model keeps busy."),
    ] = None,
    seed: Annotated[
        int, option("N", "Decides split, weights and batch order: same seed, same run.", parser=whole(0))
    ] = 42,
    device: Device = None,
) -> TrainSettings:
    """Make the settings of a training. Raise SettingError for options that do not go together."""
    check_source(source)
    if source in DATASETS:
        own = {"--target": target, "--task": task, "--valid": valid, "--drop": drop, "--image-size": image_size}
        own |= {"--kind": kinds, "--split": None if split == "auto" else split}
        if unusable := [name for name, value in own.items() if value]:
            raise SettingError(f"{unusable[0]} is for data of your own; {source} has its classes and its split")
    if image_size is not None and not Path(source).is_dir():
        raise SettingError(f"--image-size is for a folder of images; {source} is a file")
    table = TableSpec(
        target=target or (),
        task=task,
        kinds=dict(map(_column_kind, kinds or [])),
        drop=drop or (),
        split=split,
        valid=0.2 if valid is None else valid,
        seed=seed,
    )
    return TrainSettings(
        source, table, image_size, memory_limit, bs, epochs, lr, _model(model, hidden, source), wd, engine, precision,
        device, threads,
    )  # fmt: skip


def _column_kind(text: str) -> tuple[str, ColumnKind]:
    name, _, kind = text.rpartition("=")
    if not name:
        raise SettingError(f"--kind is {text}; expected NAME=KIND, for example age=number")
    try:
        return name, choice(ColumnKind)(kind)
    except BadValueError as error:
        raise SettingError(f"--kind of {name} is {error.message}") from error


def _model(model: ModelChoice | None, hidden: ModelChoice | None, source: str) -> ModelChoice:
    """Return the choice of --model, or that of --hidden, which is short for the widths of mnist's model."""
    if hidden is not None:
        if source not in DATASETS:
            widths = ",".join(map(str, hidden.hidden or ()))
            raise SettingError(f"--hidden is for {', '.join(DATASETS)}; give --model mlp:{widths}")
        if model not in (None, ModelChoice()):
            raise SettingError("--hidden and --model both say how wide the model is; give one of them")
        return hidden
    if model is not None and model.kind == "tabular" and source in DATASETS:
        widths = "" if model.hidden is None else ":" + ",".join(map(str, model.hidden))
        raise SettingError(
            f"--model is tabular{widths}, which is for tables; {source} has images: expected mlp:256,128"
        )
    return model or ModelChoice()


def takes_settings(
    without: Collection[str] = (), source_required: bool = True
) -> Callable[[Callable[..., _T]], Callable[..., _T]]:
    """Replace a command's parameter `settings` by the options of `train_settings`, except those in `without`.

    The command is called with the TrainSettings that they make. If the source is not required, `settings` is None if it
    is missing.
    """

    def decorate(command: Callable[..., _T]) -> Callable[..., _T]:
        signature = inspect.signature(train_settings)
        options = [parameter for name, parameter in signature.parameters.items() if name not in without]
        if not source_required:
            options[0] = options[0].replace(default=None)
        others = [item for item in inspect.signature(command).parameters.values() if item.name != "settings"]

        @wraps(command)
        def expanded(**values: Any) -> _T:
            chosen = {parameter.name: values.pop(parameter.name) for parameter in options}
            settings = train_settings(**chosen) if chosen["source"] is not None else None
            return command(settings=settings, **values)

        keyword = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in (*options, *others)]
        expanded.__signature__ = inspect.Signature(keyword)  # pyright: ignore[reportAttributeAccessIssue] -- typer reads it
        return expanded

    return decorate


def check_alone(context: typer.Context, name: str) -> None:
    """Raise SettingError if options other than `name`, --device and --json were given."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in (name, "device", "as_json"):
            written = "SOURCE" if parameter.name == "source" else parameter.opts[0]
            raise SettingError(f"--{name} takes its settings from the run; leave out {written}")
