"""What the loop says of its progress, and the display that shows nothing."""

from typing import Protocol


class Display(Protocol):
    """Shows a fit while it runs. Implementations are in `show/progress.py`."""

    def start(self, columns: list[str], steps: int, batches: int) -> None:
        """A fit begins: the table's column names, how many steps there will be, and how many make an epoch."""
        ...

    def update(self, epoch: int, batch: int, loss: float) -> None:
        """`batch` batches of `epoch` are done, `loss` is the smoothed loss; called a few times a second."""
        ...

    def phase(self, name: str) -> None:
        """What is done now, for example validating."""
        ...

    def row(self, values: list[str]) -> None:
        """An epoch is over: its row of the table."""
        ...

    def finish(self, reason: str | None) -> None:
        """The fit is over; `reason` says why it ended before its last epoch."""
        ...

    def message(self, text: str) -> None:
        """A line of text."""
        ...


class SilentDisplay:
    """Shows nothing."""

    def start(self, columns: list[str], steps: int, batches: int) -> None:
        """Nothing."""

    def update(self, epoch: int, batch: int, loss: float) -> None:
        """Nothing."""

    def phase(self, name: str) -> None:
        """Nothing."""

    def row(self, values: list[str]) -> None:
        """Nothing."""

    def finish(self, reason: str | None) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""
