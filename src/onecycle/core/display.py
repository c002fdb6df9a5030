"""The interface that shows the progress of a fit, and the display that shows nothing."""

from typing import Protocol


class Display(Protocol):
    """Shows a fit while it runs. Implementations are in `show/progress.py`."""

    def start(self, columns: list[str], steps: int, batches: int) -> None:
        """Begin a fit with these table columns, of `steps` steps in all and `batches` in an epoch."""
        ...

    def update(self, epoch: int, batch: int, loss: float) -> None:
        """Show that `batch` batches of `epoch` are done, with the smoothed loss; called a few times a second."""
        ...

    def phase(self, name: str) -> None:
        """Show what is done now, for example validating."""
        ...

    def row(self, values: list[str]) -> None:
        """Show the table row of an epoch that is over."""
        ...

    def finish(self, reason: str | None) -> None:
        """End the fit; `reason` says why before its last epoch, else None."""
        ...

    def message(self, text: str) -> None:
        """Show a line of text."""
        ...


class SilentDisplay:
    """A display that shows nothing."""

    def start(self, columns: list[str], steps: int, batches: int) -> None: ...
    def update(self, epoch: int, batch: int, loss: float) -> None: ...
    def phase(self, name: str) -> None: ...
    def row(self, values: list[str]) -> None: ...
    def finish(self, reason: str | None) -> None: ...
    def message(self, text: str) -> None: ...
