"""How a command ends that did not do what was asked: one line on stderr, and an exit code."""

import codecs
import os
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

from onecycle.errors import did_you_mean

FAILED, BAD_REQUEST, INTERRUPTED, CLOSED_PIPE, TERMINATED = 1, 2, 130, 141, 143


class TerminatedError(BaseException):
    """SIGTERM, as an exception, so that half-written files are cleaned up; no `except Exception` stops it."""


def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """The handler of SIGTERM."""
    raise TerminatedError


def printable(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""What to print for text that the output's encoding lacks: the bytes of a file's name as they are, else \u1234."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("onecycle.printable", printable)


def warn(message: Warning | str, *_: Any) -> None:
    """Stands in for `warnings.showwarning`: a line, without a place in the source."""
    print(f"warning: {message}", file=sys.stderr)


def fail(message: str, code: int) -> int:
    """Say why; gives back the exit code."""
    if os.environ.get("ONECYCLE_DEBUG"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code


def explained(error: Any) -> str:
    """Our words for what typer says about arguments."""
    context = error.ctx
    hint = f"; see {context.command_path} --help" if context else ""
    if type(error).__name__ == "NoSuchOption":
        known = [name for param in context.command.params for name in param.opts] if context else []
        return f'unknown option "{error.option_name}"{did_you_mean(error.option_name, [*known, "--help"]) or hint}'
    message = error.format_message().rstrip(".")
    return message[:1].lower() + message[1:] + hint
