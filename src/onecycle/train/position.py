"""Where a fit stands between two steps, and who may want to keep it."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from onecycle.train.callbacks import Fit


@dataclass(frozen=True)
class Position:
    """Between two steps of a fit: `num_batch` batches of `epoch` are done, and `iteration` since the fit began."""

    epoch: int = 0
    num_batch: int = 0
    iteration: int = 0
    seconds: float = 0.0  # that the epoch took so far
    generators: dict[str, Tensor] = field(default_factory=dict[str, Tensor])  # none where the epoch will seed them


class Saver(Protocol):
    """Keeps a fit while it runs. `keep/saver.py` has the one that writes checkpoints."""

    def longest_run(self, fit: Fit) -> int:
        """How many steps may be taken before it wants to look again."""
        ...

    def is_due(self, fit: Fit) -> bool:
        """Whether the fit is to be kept now, in the middle of an epoch. Raises what writing the last one raised."""
        ...

    def save(self, position: Position) -> None:
        """Keep the fit as it is now."""
        ...

    def end_epoch(self, position: Position) -> None:
        """An epoch is over, its row written: keep the fit where it is time to."""
        ...

    def request(self) -> None:
        """Keep the fit as soon as can be; called by the handler of a signal."""
        ...

    def fail(self, error: Exception) -> None:
        """The fit ends with this error."""
        ...

    def close(self) -> None:
        """Wait for what is being written. Raises what writing raised."""
        ...
