"""TrainSettings: what `train`, `lr-find` and `inspect` are asked to do. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from onecycle.core.choices import EngineName, Precision
from onecycle.core.reading import unreadable
from onecycle.errors import SettingError, did_you_mean
from onecycle.tables.spec import TableSpec

ModelKind: TypeAlias = Literal["auto", "mlp", "tabular"]

DATASETS = ("mnist",)
_COMPRESSED = (".gz", ".zst")


class ImageSize(NamedTuple):
    """The size that images are scaled to, in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class ModelChoice:
    """The kind of model, and the widths of its hidden layers; None if they follow from the data."""

    kind: ModelKind = "auto"
    hidden: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training.

    Attributes:
        source: The name of a data set of the library, or the path of a file or folder.
        table: What is predicted, from which columns, and which rows validate. `target` and `drop` are as the user wrote
            them (names separated by commas, or one name with a comma in it); `target` is () if it was not given.
        image_size: Size that the images of a folder are scaled to.
        memory_limit: Size of a table above which it is prepared on disk; None for half of the available memory.
        bs: Rows per batch; None to choose it by the number of rows.
        epochs: Length of the cycle; None to choose it by the number of batches.
        lr: Peak learning rate; None for the finder's suggestion.
        model: Which model is trained.
        wd: Weight decay.
        engine: Which engine runs the steps.
        precision: Number format of the forward pass.
        device: Name of the device; None to choose it.
        threads: CPU threads; None to choose them by the model's work.
    """

    source: str
    table: TableSpec = field(default_factory=lambda: TableSpec(target=()))
    image_size: ImageSize | None = None
    memory_limit: str | None = None
    bs: int | None = None
    epochs: int | None = None
    lr: float | None = None
    model: ModelChoice = ModelChoice()
    wd: float = 1e-2
    engine: EngineName = "auto"
    precision: Precision = "fp32"
    device: str | None = None
    threads: int | None = None

    @property
    def is_dataset(self) -> bool:
        """Whether the source is a data set of the library, not a path."""
        return self.source in DATASETS


def default_run_folder(source: str) -> Path:
    """Return the folder that `train` writes to by default: runs/ and the source's name without its suffixes."""
    name = Path(source).resolve().name
    if source not in DATASETS and not Path(source).is_dir():
        for _ in range(2 if name.lower().endswith(_COMPRESSED) else 1):
            name = Path(name).stem
    return Path("runs") / (name or "run")


def check_source(source: str) -> None:
    """Raise SettingError or FileError if `source` is neither a data set nor the path of a file or folder."""
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
    hint = did_you_mean(source, DATASETS) or "; expected mnist, or the path of a file or folder"
    raise SettingError(f'unknown data set "{source}"{hint}')
