"""Streams that never fail, and on which nothing can change the terminal."""

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from onecycle.core.streams import PrintableStream, printable_output, unfiltered


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_names_are_escaped_and_what_is_meant_is_not():
    stream = PrintableStream(sink := io.StringIO())
    print("a\x1b[31mb\tc", file=stream)
    unfiltered(stream).write("\r\x1b[K")
    assert sink.getvalue() == "a\\x1b[31mb\tc\n\r\x1b[K"
    assert unfiltered(sink) is sink


def test_what_cannot_be_written_is_dropped_and_said():
    with printable_output() as stdout:
        stdout.flush()
    stream = PrintableStream(Full())
    assert stream.write("text") == 4
    stream.write("more")
    stream.flush()
    assert stream.error is not None
    assert stream.error.errno == errno.ENOSPC


def test_without_a_console(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    with printable_output() as stdout:
        print("nobody reads this")
        assert not stdout.isatty()
    assert sys.stdout is None
    assert stdout.error is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file of Linux")
def test_what_is_buffered_does_not_fail_again_at_the_exit():
    with open("/dev/full", "w") as full:  # noqa: PTH123 -- a text stream as Python opens stdout
        stream = PrintableStream(full)
        stream.write("text")
        stream.flush()
        assert stream.error is not None
        assert os.fstat(full.fileno()).st_rdev == Path(os.devnull).stat().st_rdev
