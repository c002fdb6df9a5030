"""The options of the command line that several commands have."""

from pathlib import Path
from typing import Annotated, Any

import typer

from onecycle.errors import SettingError


def option(metavar: str, text: str, *names: str) -> Any:
    """An option with our words for its value."""
    return typer.Option(*names, metavar=metavar, help=text)


# Numbers and choices arrive as text: `TrainSettings` checks them in one place, with one wording.
Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="mnist, or the path of a file or folder.", show_default=False)
]
Target = Annotated[str | None, option("NAME,...", "The columns to predict; a table needs it.")]
Task = Annotated[str | None, option("TASK", "classes, regression or multilabel, where the guess is wrong.")]
SplitBy = Annotated[
    str, option("HOW", "auto, random, stratified, time:COLUMN, group:COLUMN or column:COLUMN.", "--split")
]
Valid = Annotated[str | None, option("SHARE", "Share (or number) of the rows that validate; by default 0.2.")]
Drop = Annotated[str | None, option("NAME,...", "Columns to leave out.")]
Kind = Annotated[
    list[str] | None,
    option("NAME=KIND", "What a column is: number, category, date or dropped. Can be given again.", "--kind"),
]
ImageSize = Annotated[str | None, option("N|HxW", "Scale the images of a folder to this size.")]
Memory = Annotated[
    str | None, option("SIZE", 'Prepare what takes more ("2 GB") on the disk; by default half of what is free.')
]
Epochs = Annotated[str, option("N|auto", "Epochs of the one cycle; auto is 1 for mnist, else by size.")]
Batch = Annotated[str, option("N|auto", "Batch size; auto is 64 for mnist, else by size.")]
Model = Annotated[str, option("MODEL", "auto, mlp:256,128 or tabular:256,128 (the sizes of the hidden layers).")]
Hidden = Annotated[str | None, option("N,N,...", "Sizes of the hidden layers, for mnist; by default 50.")]
Rate = Annotated[str, option("auto|NUMBER", "Peak learning rate; auto takes what the finder suggests.")]
Decay = Annotated[str, option("NUMBER", "Weight decay.")]
Precision = Annotated[str, option("NAME", "fp32 or bf16.")]
EngineName = Annotated[str, option("NAME", "auto, eager or fast.", "--engine")]
Seed = Annotated[str, option("N", "Decides split, weights and batch order: same seed, same run.")]
Device = Annotated[
    str | None, option("NAME", "cpu, cuda, cuda:N or mps; else ONECYCLE_DEVICE, else the fastest there is.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout instead.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `train` wrote.", show_default=False)]


def check_alone(context: typer.Context, name: str) -> None:
    """Raises SettingError where other options than `name` are given, but for the device and --json."""
    sources = {param.name: context.get_parameter_source(param.name or "") for param in context.command.params}
    given = [key for key, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    others = [str(key) for key in given if key not in (name, "device", "as_json")]
    if others:
        option_name = "SOURCE" if others[0] == "source" else "--" + others[0].replace("_", "-")
        raise SettingError(f"--{name} takes its settings from the run; leave out {option_name}")
