"""The text of the command line as checked settings. Nothing heavy is imported: a bad request is refused at once."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onecycle.core.errors import SettingError, did_you_mean

DATASETS = ("mnist",)
_LARGEST_LAYER = 1_000_000


@dataclass(frozen=True)
class TrainSettings:
    """What `train` and `lr-find` are asked to do."""

    dataset: str
    epochs: int
    lr: float | None  # None: what the finder suggests
    bs: int
    hidden: tuple[int, ...]
    wd: float
    seed: int
    device: str | None

    @classmethod
    def parse(
        cls, dataset: str, epochs: str, lr: str, bs: str, hidden: str, wd: str, seed: str, device: str | None
    ) -> "TrainSettings":
        """The settings that the options' text says. Raises SettingError, naming the option, for what cannot be used."""
        if dataset not in DATASETS:
            hint = did_you_mean(dataset, DATASETS) or f"; expected {', '.join(DATASETS)}"
            raise SettingError(f'unknown data set "{dataset}"{hint}')
        return cls(
            dataset=dataset,
            epochs=_whole("--epochs", epochs, 0),
            lr=None if lr == "auto" else _number("--lr", lr, "a number above 0, or auto", above=0.0),
            bs=_whole("--bs", bs, 1),
            hidden=_sizes(hidden),
            wd=_number("--wd", wd, "a number of at least 0", least=0.0),
            seed=_whole("--seed", seed, 0),
            device=device,
        )

    def describe(self) -> dict[str, Any]:
        """What the record keeps of these settings besides those that the learner writes down itself."""
        chosen = "given" if self.lr is not None else "suggested by the finder"
        return {"data": self.dataset, "hidden": list(self.hidden), "lr_choice": chosen}


def check_plot_name(out: Path | None) -> None:
    """Raises SettingError where `out` is not the name of a PNG file."""
    if out is not None and out.suffix.lower() != ".png" and not out.is_dir():
        raise SettingError(f"--out is {out}; expected a name that ends in .png: {out.with_suffix('.png')}")


def _whole(option: str, text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value < 2**63:
        raise SettingError(f"{option} is {text}; expected a whole number of at least {least}")
    return value


def _number(option: str, text: str, expected: str, above: float = -math.inf, least: float = -math.inf) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > above and value >= least):
        raise SettingError(f"{option} is {text}; expected {expected}")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        sizes = (0,)
    if any(not 1 <= size <= _LARGEST_LAYER for size in sizes):
        expected = f"sizes from 1 to {_LARGEST_LAYER:,}, separated by commas: 256,128"
        raise SettingError(f"--hidden is {text}; expected {expected}")
    return sizes
