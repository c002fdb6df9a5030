"""stdout and stderr of the command line: what is printed cannot change the terminal, nor end the work if it fails."""

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from onecycle.errors import printable


class UnfailingStream(io.TextIOBase):
    """A stream that drops what cannot be written, because it is closed or its disk is full.

    Attributes:
        error: The first error; None without one.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.error: OSError | None = None

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] -- TextIOBase's cannot be set
        """The encoding of the stream, which rich and typer look at."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        self._attempt("flush")

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file's descriptor. Raises OSError if there is none."""
        return super().fileno() if self._stream is None else self._stream.fileno()

    def _attempt(self, method: str, *args: str) -> None:
        if self._stream is None or self.error is not None:
            return
        try:
            getattr(self._stream, method)(*args)
        except OSError as error:
            self.error = error
            with suppress(OSError):  # no descriptor: a stream of a test, say
                descriptor = os.open(os.devnull, os.O_WRONLY)
                os.dup2(descriptor, self._stream.fileno())  # where Python writes what is still buffered when it exits
                os.close(descriptor)


class PrintableStream(UnfailingStream):
    """A stream on which control characters are escaped (see `printable`).

    Attributes:
        unfiltered: The stream for what moves the cursor on purpose, and has no name of the user's in it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self.unfiltered = UnfailingStream(stream)

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        return super().write(printable(text, keep_bytes=not self.isatty()))


def unfiltered(stream: Any) -> Any:
    """Return the stream for sequences that control the terminal: `stream` itself unless it is a PrintableStream."""
    return getattr(stream, "unfiltered", stream)


@contextmanager
def printable_output() -> Generator[PrintableStream]:
    """Replace stdout and stderr by PrintableStreams in the block; yield that of stdout."""
    before = sys.stdout, sys.stderr
    stdout = PrintableStream(sys.stdout)
    sys.stdout, sys.stderr = stdout, PrintableStream(sys.stderr)
    try:
        yield stdout
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def reserve_descriptors() -> None:
    """Open the null device where stdin, stdout or stderr is closed, so that no file of ours takes its number.

    Whatever C code prints would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
