"""The text of the command line as checked settings. Nothing heavy is imported: a bad request is refused at once."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from onecycle.core.choices import ColumnKind, EngineName, Precision, Task
from onecycle.core.reading import unreadable
from onecycle.errors import SettingError, did_you_mean

DATASETS = ("mnist",)
MODELS = ("auto", "mlp", "tabular")
PACKED = (".gz", ".zst")
WRITTEN = (".parquet", ".csv", ".tsv", ".arrow", ".feather")
_SPLITS, _COLUMN_SPLITS = ("auto", "random", "stratified"), ("time", "group", "column")
_LARGEST_LAYER = 1_000_000
_MODEL_FORMS = "auto, mlp:256,128 or tabular:256,128"
_NUMBER_OR_AUTO = "a number above 0, or auto"


@dataclass(frozen=True)
class DataSettings:
    """What is read, and how it is divided."""

    source: str
    target: str | None = None  # as given: names and commas, or one name with a comma in it
    task: Task | None = None  # None: what the target looks like
    split: str = "auto"
    valid: float = 0.2  # a share, or as an int a number of rows
    drop: str | None = None
    kinds: tuple[tuple[str, ColumnKind], ...] = ()
    image_size: tuple[int, int] | None = None
    memory_limit: str | None = None  # None: half of what is available
    bs: int | None = None  # None: by rule
    seed: int = 42
    device: str | None = None

    @property
    def is_dataset(self) -> bool:
        """Whether the source is a data set of the library's own, and not a path."""
        return self.source in DATASETS


@dataclass(frozen=True)
class ModelChoice:
    """Which model is made: auto, mlp or tabular; without `hidden` its widths follow a rule."""

    kind: str
    hidden: tuple[int, ...] | None


@dataclass(frozen=True)
class TrainSettings:
    """What `train`, `lr-find` and `inspect` are asked to do."""

    data: DataSettings
    epochs: int | None  # None: by rule
    lr: float | None  # None: what the finder suggests
    model: ModelChoice
    wd: float
    engine: EngineName
    precision: Precision

    @classmethod
    def parse(
        cls,
        source: str,
        *,
        target: str | None = None,
        task: str | None = None,
        split: str = "auto",
        valid: str | None = None,
        drop: str | None = None,
        kinds: Sequence[str] | None = None,
        image_size: str | None = None,
        memory_limit: str | None = None,
        epochs: str = "auto",
        lr: str = "auto",
        bs: str = "auto",
        model: str = "auto",
        hidden: str | None = None,
        wd: str = "1e-2",
        seed: str = "42",
        device: str | None = None,
        engine: str = "auto",
        precision: str = "fp32",
    ) -> "TrainSettings":
        """The settings that the options' text says. Raises SettingError, naming the option, for what cannot be used."""
        _check_source(source)
        if source in DATASETS:
            own = {"--target": target, "--task": task, "--valid": valid, "--drop": drop, "--image-size": image_size}
            own |= {"--kind": kinds, "--split": None if split == "auto" else split}
            if given := [option for option, value in own.items() if value]:
                raise SettingError(f"{given[0]} is for data of your own; {source} has its classes and its split")
        if image_size is not None and not Path(source).is_dir():
            raise SettingError(f"--image-size is for a folder of images; {source} is a file")
        return cls(
            data=DataSettings(
                source=source,
                target=_names("--target", target),
                task=None if task is None else _choice("--task", task, get_args(Task)),
                split=_split(split),
                valid=0.2 if valid is None else _share(valid),
                drop=_names("--drop", drop),
                kinds=tuple(map(_kind, kinds or ())),
                image_size=None if image_size is None else _image_size(image_size),
                memory_limit=memory_limit,
                bs=None if bs == "auto" else _whole("--bs", bs, 1, ", or auto"),
                seed=_whole("--seed", seed, 0),
                device=device,
            ),
            epochs=None if epochs == "auto" else _whole("--epochs", epochs, 0, ", or auto"),
            lr=None if lr == "auto" else _number("--lr", lr, _NUMBER_OR_AUTO, above=0.0),
            model=_model(model, hidden, source),
            wd=_number("--wd", wd, "a number of at least 0", least=0.0),
            engine=_choice("--engine", engine, get_args(EngineName)),
            precision=_choice("--precision", precision, get_args(Precision)),
        )


def check_plot_name(out: Path | None) -> None:
    """Raises SettingError where `out` is not the name of a PNG file."""
    if out is not None and out.suffix.lower() != ".png" and not out.is_dir():
        raise SettingError(f"--out is {out}; expected a name that ends in .png: {out.with_suffix('.png')}")


def check_table_name(out: Path | None) -> None:
    """Raises SettingError where `out` is not the name of a table that `predict` can write."""
    if out is not None and out.suffix.lower() not in WRITTEN and not out.is_dir():
        near = did_you_mean(out.suffix, WRITTEN)
        raise SettingError(f"-o is {out}; expected a name that ends in {', '.join(WRITTEN)}{near}")


def run_folder(source: str) -> Path:
    """Where `train` writes by default: runs/ and the source's name without its suffixes."""
    name = Path(source).resolve().name
    for _ in range(2 if name.lower().endswith(PACKED) else 1):
        name = Path(name).stem if source not in DATASETS and not Path(source).is_dir() else name
    return Path("runs") / (name or "run")


def _check_source(source: str) -> None:
    """Raises SettingError or FileError where `source` is neither a data set nor the path of something."""
    if source in DATASETS:
        return
    path = Path(source)
    try:
        if source and path.exists():  # "" would be the current folder
            return
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be entered
        raise SettingError(f"{source!r}: cannot be read ({error}); check the path") from error
    if path.suffix or len(path.parts) > 1:
        raise unreadable(path, FileNotFoundError())
    near = did_you_mean(source, DATASETS)
    raise SettingError(f'unknown data set "{source}"{near or "; expected mnist, or the path of a file or folder"}')


_Choice = TypeVar("_Choice", bound=str)


def _choice(option: str, text: str, choices: Sequence[_Choice]) -> _Choice:
    for choice in choices:
        if text == choice:
            return choice
    expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
    raise SettingError(f"{option} is {text}; expected {expected}{did_you_mean(text, choices)}")


def _whole(option: str, text: str, least: int, more: str = "") -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value < 2**63:
        raise SettingError(f"{option} is {text}; expected a whole number of at least {least}{more}")
    return value


def _number(option: str, text: str, expected: str, above: float = -math.inf, least: float = -math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > above and value >= least):
        raise SettingError(f"{option} is {text}; expected {expected}")
    return value


def _share(text: str) -> float:
    """A share, or a number of rows as an int."""
    expected = "a share between 0 and 1, or a whole number of rows"
    try:
        value = int(text)
    except ValueError:
        value = _number("--valid", text, expected, above=0.0)
    if value < 1 if isinstance(value, int) else value >= 1:
        raise SettingError(f"--valid is {text}; expected {expected}")
    return value


def _names(option: str, text: str | None) -> str | None:
    if text is not None and not all(part.strip() for part in text.split(",")):
        raise SettingError(f'{option} is "{text}"; expected names of columns, separated by commas')
    return text


def _split(text: str) -> str:
    way, colon, column = text.partition(":")
    ways = (*_SPLITS, *_COLUMN_SPLITS)
    if way not in ways or bool(column) != (way in _COLUMN_SPLITS) or (colon and not column):
        forms = ", ".join((*_SPLITS, *(f"{name}:COLUMN" for name in _COLUMN_SPLITS)))
        near = "" if way in ways else did_you_mean(way, ways)
        raise SettingError(f"--split is {text}; expected one of {forms}{near}")
    return text


def _kind(text: str) -> tuple[str, ColumnKind]:
    name, _, kind = text.rpartition("=")
    if not name:
        raise SettingError(f"--kind is {text}; expected NAME=KIND, for example age=number")
    return name, _choice(f"--kind of {name}", kind, get_args(ColumnKind))


def _image_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    sides = [int(side) for side in found.groups() if side] if found else [0]
    if 0 in sides:
        raise SettingError(f"--image-size is {text}; expected a side in pixels, or HEIGHTxWIDTH: 28 or 28x32")
    return sides[0], sides[-1]


def _model(text: str, hidden: str | None, source: str) -> ModelChoice:
    """The model that --model asks for; --hidden is another word for the widths of mnist's."""
    if hidden is not None:
        widths = _sizes(f"--hidden is {hidden}", hidden)
        if source not in DATASETS:
            raise SettingError(f"--hidden is for {', '.join(DATASETS)}; give --model mlp:{hidden}")
        if text != "auto":
            raise SettingError("--hidden and --model both say how wide the model is; give one of them")
        return ModelChoice("mlp", widths)
    kind, colon, widths = text.partition(":")
    if kind not in MODELS or (kind == "auto" and colon):
        raise SettingError(f"--model is {text}; expected {_MODEL_FORMS}{did_you_mean(kind, MODELS)}")
    if kind == "tabular" and source in DATASETS:
        raise SettingError(f"--model is {text}, which is for tables; {source} has images: expected mlp:256,128")
    return ModelChoice(kind, _sizes(f"--model is {text}", widths) if colon else None)


def _sizes(what: str, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(not 1 <= size <= _LARGEST_LAYER for size in sizes):
        raise SettingError(f"{what}; expected sizes from 1 to {_LARGEST_LAYER:,}, separated by commas: 256,128")
    return sizes
